package envoy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/config"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// section is one of a module's: a number, a size, and content, all shorter than 128.
func section(id byte, content ...byte) []byte {
	return append([]byte{id, byte(len(content))}, content...)
}

func name(text string) []byte { return append([]byte{byte(len(text))}, text...) }

// leastModule is the least that Envoy loads as a plugin: it has an import of each kind, and
// does nothing.
func leastModule() []byte {
	const i32 = 0x7f
	cat := func(parts ...[]byte) (out []byte) {
		for _, p := range parts {
			out = append(out, p...)
		}
		return out
	}
	return cat(
		[]byte("\x00asm\x01\x00\x00\x00"),
		section(1, 4, // types
			0x60, 0, 0,
			0x60, 1, i32, 1, i32,
			0x60, 3, i32, i32, i32, 1, i32,
			0x60, 4, i32, i32, i32, i32, 1, i32),
		section(2, cat([]byte{2}, // imports
			name("env"), name("proxy_log"), []byte{0, 2},
			name("wasi_snapshot_preview1"), name("fd_write"), []byte{0, 3})...),
		section(3, 3, 0, 1, 1), // functions 2, 3, 4
		section(5, 1, 0, 1),    // one page of memory
		section(7, cat([]byte{4}, // exports
			name("memory"), []byte{2, 0},
			name("proxy_abi_version_0_2_1"), []byte{0, 2},
			name("proxy_on_memory_allocate"), []byte{0, 3},
			name("proxy_on_done"), []byte{0, 4})...),
		section(10, 3, 2, 0, 0x0b, 5, 0, 0x41, 0x80, 0x08, 0x0b, 4, 0, 0x41, 1, 0x0b), // code: return; return 1024; return 1
	)
}

// spec is the configuration of text for a cluster of so many brokers, with everything that
// differs between runs fixed.
func spec(t *testing.T, text string, brokers int) Spec {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(path, []byte("state: node.state\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := config.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	module, err := ReadModule(t.Context(), "/opt/wasm-e2ee/e2ee.wasm", leastModule())
	if err != nil {
		t.Fatal(err)
	}
	s := Spec{File: file, Admin: DefaultAdmin, Module: module, Cluster: kadm.Metadata{Cluster: "c1"},
		Node: keyring.View{Realm: wire.RealmID{0xab, 15: 0xcd}, Node: wire.NodeID{0x12, 15: 0x34}}}
	for id := range int32(brokers) {
		s.Cluster.Brokers = append(s.Cluster.Brokers, kadm.BrokerDetail{NodeID: id + 1, Host: "broker-" + string(rune('1'+id)) + ".example.com", Port: 9092})
	}
	return s
}

const unixAgent = "agent: {listen: unix:/run/wasm-e2ee/agent.sock, pairing_key_file: pairing.key}\n"

// A certificateFiles is what a server or a client proves its name with.
type certificateFiles struct{ CA, Cert, Key string }

// certify makes a root, and a certificate under it for these hosts.
func certify(t *testing.T, hosts ...string) certificateFiles {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "leaf"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, host)
		}
	}
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, &rootKey.PublicKey, rootKey)
	must(err)
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, &leafKey.PublicKey, rootKey)
	must(err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	must(err)
	dir := t.TempDir()
	put := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		must(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	return certificateFiles{put("ca.pem", "CERTIFICATE", rootDER), put("cert.pem", "CERTIFICATE", leafDER), put("key.pem", "PRIVATE KEY", keyDER)}
}
