package service

import (
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
)

func tlsToPB(p *listeners.TLSPolicy) *pb.TlsConfig {
	if p == nil {
		return nil
	}
	out := &pb.TlsConfig{ClientCaFile: p.ClientCA, MinVersion: p.MinVersion, Alpn: p.ALPN, HandshakeTimeout: spanToPB(p.Handshake)}
	for i, pair := range p.Certificates {
		if i == 0 {
			out.CertificateFile, out.KeyFile = pair.Certificate, pair.Key
			continue
		}
		out.MoreCertificates = append(out.MoreCertificates, &pb.TlsCertificate{CertificateFile: pair.Certificate, KeyFile: pair.Key})
	}
	return out
}

// tlsFromPB returns nil for a section that says nothing: that is how TLS is
// taken out.
func tlsFromPB(c *pb.TlsConfig) (*listeners.TLSPolicy, error) {
	if proto.Size(c) == 0 {
		return nil, nil
	}
	wait, err := durationFromPB("spec.tls.handshake_timeout", c.GetHandshakeTimeout(), time.Hour)
	if err != nil {
		return nil, err
	}
	out := &listeners.TLSPolicy{
		Certificates: []listeners.TLSPair{{Certificate: c.GetCertificateFile(), Key: c.GetKeyFile()}},
		ClientCA:     c.GetClientCaFile(), MinVersion: c.GetMinVersion(), ALPN: c.GetAlpn(),
	}
	for _, pair := range c.GetMoreCertificates() {
		out.Certificates = append(out.Certificates, listeners.TLSPair{Certificate: pair.GetCertificateFile(), Key: pair.GetKeyFile()})
	}
	if wait != nil {
		out.Handshake = *wait
	}
	return out, nil
}

func tlsStatusToPB(st *listeners.TLSStatus) *pb.TlsStatus {
	if st == nil {
		return nil
	}
	out := &pb.TlsStatus{LoadTime: timeToPB(st.Read)}
	if st.Fault != nil {
		out.LastError = st.Fault.Error()
	}
	for _, c := range st.Certificates {
		out.Certificates = append(out.Certificates, &pb.TlsCertificateStatus{
			CertificateFile: c.File, Names: c.Names, NotAfter: timeToPB(c.NotAfter), Sha256: c.SHA256,
		})
	}
	return out
}
