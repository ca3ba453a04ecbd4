package cli

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// tlsFlags are the flags of TLS.
type tlsFlags struct {
	certs, keys, alpn    []string
	clientCA, minVersion string
}

func (f *tlsFlags) add(c *cobra.Command) {
	flags := c.Flags()
	flags.StringArrayVar(&f.certs, "tls-cert", nil, "terminate TLS with the certificate chain in `FILE` (PEM); repeatable: chosen by the name asked for (SNI)")
	flags.StringArrayVar(&f.keys, "tls-key", nil, "its key is in `FILE` (PEM; default the --tls-cert file); repeatable, in the order of --tls-cert")
	flags.StringVar(&f.clientCA, "tls-client-ca", "", "clients need a certificate of a CA in `FILE` (PEM)")
	flags.StringVar(&f.minVersion, "tls-min-version", "", "oldest version of TLS: 1.2 (the default) or 1.3")
	flags.StringSliceVar(&f.alpn, "tls-alpn", nil, "protocols to agree on (ALPN), best first, as h2,http/1.1; repeatable")
	must(c.RegisterFlagCompletionFunc("tls-min-version", cobra.FixedCompletions([]string{"1.2", "1.3"}, cobra.ShellCompDirectiveNoFileComp)))
	must(c.RegisterFlagCompletionFunc("tls-alpn", cobra.FixedCompletions([]string{"h2", "http/1.1"}, cobra.ShellCompDirectiveNoFileComp)))
}

// config is what the flags say, nil for nothing. The daemon is somewhere else
// than where the flags are typed, so that it gets absolute paths.
func (f *tlsFlags) config() (*pb.TlsConfig, error) {
	if len(f.certs) == 0 {
		if len(f.keys)+len(f.alpn) > 0 || f.clientCA != "" || f.minVersion != "" {
			return nil, usagef("--tls-key, --tls-client-ca, --tls-min-version and --tls-alpn go with --tls-cert")
		}
		return nil, nil // was not asked for
	}
	if len(f.keys) > 0 && len(f.keys) != len(f.certs) {
		return nil, usagef("--tls-cert is given %d times and --tls-key %d times: want a key for each certificate, in the same order", len(f.certs), len(f.keys))
	}
	var faults []error
	absolute := func(name string) string {
		if name == "" {
			return ""
		}
		whole, err := filepath.Abs(name)
		if err != nil {
			faults = append(faults, usagef("%s: %s", name, err))
		}
		return whole
	}
	t := &pb.TlsConfig{ClientCaFile: absolute(f.clientCA), MinVersion: f.minVersion, Alpn: f.alpn}
	for i, cert := range f.certs {
		pair := &pb.TlsCertificate{CertificateFile: absolute(cert)}
		if len(f.keys) > 0 {
			pair.KeyFile = absolute(f.keys[i])
		}
		if i == 0 {
			t.CertificateFile, t.KeyFile = pair.GetCertificateFile(), pair.GetKeyFile()
			continue
		}
		t.MoreCertificates = append(t.MoreCertificates, pair)
	}
	if len(faults) > 0 {
		return nil, faults[0]
	}
	return t, nil
}

// tlsText is what is wanted of TLS, on one line.
func tlsText(t *pb.TlsConfig) string {
	if t == nil {
		return ""
	}
	words := []string{t.GetCertificateFile()}
	if n := len(t.GetMoreCertificates()); n > 0 {
		words[0] += fmt.Sprintf(" and %d more", n)
	}
	if t.GetMinVersion() != "" {
		words = append(words, "from version "+t.GetMinVersion()+" on")
	}
	if len(t.GetAlpn()) > 0 {
		words = append(words, "ALPN "+strings.Join(t.GetAlpn(), " "))
	}
	if t.GetClientCaFile() != "" {
		words = append(words, "clients by "+t.GetClientCaFile())
	}
	return strings.Join(words, ", ")
}

// tlsSection has a line for each certificate in use.
func (a *app) tlsSection(t *pb.TlsStatus) *section {
	s := &section{title: "TLS"}
	for _, c := range t.GetCertificates() {
		s.add(c.GetCertificateFile(), fmt.Sprintf("until %s, for %s", a.when(c.GetNotAfter()), strings.Join(c.GetNames(), " ")))
	}
	s.add("read", a.when(t.GetLoadTime()))
	s.add("not in use", t.GetLastError())
	return s
}

// tlsInfoText is what was negotiated.
func tlsInfoText(t *pb.TlsInfo) string {
	var words []string
	if t.GetVersion() != "" {
		words = append(words, t.GetVersion(), t.GetCipherSuite())
	}
	if t.GetAlpn() != "" {
		words = append(words, "ALPN "+t.GetAlpn())
	}
	return strings.Join(words, " ")
}
