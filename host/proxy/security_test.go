package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// certificate makes a self-signed certificate for 127.0.0.1 and who trusts it.
func certificate(t *testing.T) (*tls.Config, *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	server := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return server, &tls.Config{RootCAs: roots}
}

func TestTLSOnBothSidesAndSASLThrough(t *testing.T) {
	brokerTLS, trustBroker := certificate(t)
	localTLS, trustLocal := certificate(t)
	r := newRig(t, func(c *Config) { c.TLS, c.ClientTLS = trustBroker, localTLS }, nil,
		kfake.TLS(brokerTLS), kfake.EnableSASL(), kfake.Superuser("PLAIN", "app", "secret"), kfake.Superuser("SCRAM-SHA-256", "app", "secret"))
	for name, mechanism := range map[string]kgo.Opt{
		"PLAIN": kgo.SASL(plain.Auth{User: "app", Pass: "secret"}.AsMechanism()),
		"SCRAM": kgo.SASL(scram.Auth{User: "app", Pass: "secret"}.AsSha256Mechanism()),
	} {
		cl := r.client(kgo.DialTLSConfig(trustLocal), mechanism, from(name))
		r.produce(cl, name, 0, "x")
		if got := r.consume(cl, 1); got[0] != "x" {
			t.Errorf("%s: got %v", name, got)
		}
	}
	wrong := r.client(kgo.DialTLSConfig(trustLocal), kgo.SASL(plain.Auth{User: "app", Pass: "wrong"}.AsMechanism()), kgo.RecordRetries(1))
	if err := wrong.Ping(r.ctx()); err == nil {
		t.Error("a wrong password is accepted")
	}
}

func TestPlainClientOnTheTLSPortIsExplained(t *testing.T) {
	localTLS, _ := certificate(t)
	r := newRig(t, func(c *Config) { c.ClientTLS = localTLS }, nil)
	raw := dialRaw(r)
	raw.send(metadataRequest("orders"))
	for err := error(nil); !errors.Is(err, io.EOF); {
		if _, err = raw.in.ReadByte(); err != nil && !errors.Is(err, io.EOF) {
			break // reset
		}
	}
	r.eventually("the reason is logged", func() bool {
		return r.logged.count("TLS handshake", "first record does not look like a TLS handshake") == 1
	})
}

func TestBrokerWithAnUntrustedCertificateIsNotUsed(t *testing.T) {
	brokerTLS, _ := certificate(t)
	_, trustOther := certificate(t)
	r := newRig(t, func(c *Config) { c.TLS = trustOther }, nil, kfake.TLS(brokerTLS))
	raw := dialRaw(r)
	raw.send(metadataRequest("orders"))
	if _, err := raw.frame(); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want the connection closed", err)
	}
	r.eventually("the reason is logged", func() bool { return r.logged.count("broker cannot be reached", "certificate") == 1 })
}

func TestDrainWhileTheBrokerIsSlowToAnswerIsNotSlowItself(t *testing.T) {
	brokerTLS, trust := certificate(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepted, proceed := make(chan struct{}), make(chan struct{})
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		close(accepted)
		<-proceed
		secure := tls.Server(conn, brokerTLS)
		f, err := (&frameReader{in: secure, max: 1 << 20}).next()
		if err != nil {
			return
		}
		secure.Write(append([]byte{0, 0, 0, 6}, append(f.body()[4:8:8], 0, 0)...))
		io.Copy(io.Discard, secure)
	}()
	r := newRig(t, func(c *Config) { c.TLS, c.Bootstrap = trust, []string{ln.Addr().String()} }, nil)
	raw := dialRaw(r)
	raw.send(&kmsg.HeartbeatRequest{Version: 0})
	<-accepted
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	r.eventually("it drains", func() bool { return r.logged.count("sidecar drains") == 1 })
	close(proceed)
	if _, err := raw.receive(); err != nil {
		t.Errorf("the request that was taken: %v", err)
	}
	select {
	case <-stopped:
	case <-time.After(drainTime / 2):
		t.Error("the connection waits for another request")
	}
}
