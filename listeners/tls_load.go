package listeners

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxPEM bounds a file. The CA bundle of a distribution takes 200 KB.
const maxPEM = 1 << 20

// tlsFiles is what the files of a policy said when they were read. It does not
// change.
type tlsFiles struct {
	config *tls.Config
	pairs  []tlsPair
	sum    [sha256.Size]byte // of all files
	read   time.Time
}

// tlsPair is one certificate with its key.
type tlsPair struct {
	file string
	*tls.Certificate
}

// A tlsLoader reads the files of one policy.
type tlsLoader struct {
	now    time.Time
	faults []error
	all    [][]byte
}

func (r *tlsLoader) bad(field, format string, args ...any) {
	r.faults = append(r.faults, &Violation{Field: "spec.tls." + field, Message: fmt.Sprintf(format, args...), Reason: TLSInvalid})
}

// load reads all files. It waits for the disk: never call it on the loop. What
// it returns as an error are Violations.
func (p *TLSPolicy) load(now time.Time) (*tlsFiles, error) {
	r := &tlsLoader{now: now}
	f := &tlsFiles{read: now, config: &tls.Config{MinVersion: tlsVersions[p.MinVersion], NextProtos: p.ALPN}}
	for i, pair := range p.Certificates {
		if c := r.pair(pairField(i), pair); c != nil {
			f.pairs = append(f.pairs, tlsPair{pair.Certificate, c})
		}
	}
	if p.ClientCA != "" {
		f.config.ClientCAs, f.config.ClientAuth = r.pool("client_ca_file", p.ClientCA), tls.RequireAndVerifyClientCert
	}
	if err := errors.Join(r.faults...); err != nil {
		return nil, err
	}
	f.config.GetCertificate = newChooser(f.pairs).choose
	sum := sha256.New()
	for _, text := range r.all {
		one := sha256.Sum256(text)
		sum.Write(one[:])
	}
	sum.Sum(f.sum[:0])
	return f, nil
}

// pair reads one certificate and its key; nil when they cannot be used.
func (r *tlsLoader) pair(prefix string, p TLSPair) *tls.Certificate {
	before := len(r.faults)
	certText := r.file(prefix+"certificate_file", p.Certificate)
	keyField, keyText := prefix+"certificate_file", certText
	if p.Key != "" {
		keyField = prefix + "key_file"
		keyText = r.file(keyField, p.Key)
	}
	if certText != nil {
		if chain := r.chain(prefix+"certificate_file", p.Certificate, certText); len(chain) > 0 {
			r.valid(prefix+"certificate_file", p.Certificate, chain[0])
		}
	}
	if keyText != nil {
		r.key(keyField, p.keyFile(), keyText)
	}
	if len(r.faults) > before {
		return nil
	}
	c, err := tls.X509KeyPair(certText, keyText)
	if err != nil {
		r.bad(keyField, "the key in %s is not that of the certificate in %s: %s", p.keyFile(), p.Certificate, tlsText(err))
		return nil
	}
	return &c
}

// chain parses the certificates of a file.
func (r *tlsLoader) chain(field, name string, text []byte) (chain []*x509.Certificate) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			r.bad(field, "certificate %d in %s cannot be read: %v", len(chain)+1, name, err)
			return nil
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		r.bad(field, "%s has no certificate in PEM", name)
	}
	return chain
}

// valid refuses what no client would take now.
func (r *tlsLoader) valid(field, name string, c *x509.Certificate) {
	const form = "2006-01-02 15:04:05 MST"
	switch {
	case r.now.After(c.NotAfter):
		r.bad(field, "the certificate in %s has expired: it was valid until %s", name, c.NotAfter.UTC().Format(form))
	case r.now.Before(c.NotBefore):
		r.bad(field, "the certificate in %s is not valid yet: it is from %s on; is the clock right?", name, c.NotBefore.UTC().Format(form))
	}
}

// key finds a key that the daemon can use without a passphrase.
func (r *tlsLoader) key(field, name string, text []byte) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		if strings.HasPrefix(block.Type, "ENCRYPTED") || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			r.bad(field, "the key in %s is encrypted, and nobody is there to type a passphrase: openssl pkey -in %s -out PLAIN", name, name)
		}
		return
	}
	r.bad(field, "%s has no private key in PEM", name)
}

// pool reads a file of CAs.
func (r *tlsLoader) pool(field, name string) *x509.CertPool {
	pool := x509.NewCertPool()
	if text := r.file(field, name); text != nil {
		for _, c := range r.chain(field, name, text) {
			pool.AddCert(c)
		}
	}
	return pool
}

// file reads a regular file; nil when it cannot.
func (r *tlsLoader) file(field, name string) []byte {
	text, err := readRegular(name, maxPEM)
	r.all = append(r.all, text)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.bad(field, "there is no file %s", name)
	case errors.Is(err, fs.ErrPermission):
		r.bad(field, "the daemon, as user %d, may not read %s (EACCES)", os.Geteuid(), name)
	case err != nil:
		r.bad(field, "%v", err)
	}
	if err != nil {
		return nil
	}
	return text
}

// readRegular reads a file that is neither a pipe, which could wait for ever,
// nor too long.
func readRegular(name string, most int64) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was read only
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("%s has more than %d bytes", name, most)
	}
	return text, err
}

// tlsText is what crypto/tls says, without saying that it does.
func tlsText(err error) string { return strings.TrimPrefix(err.Error(), "tls: ") }
