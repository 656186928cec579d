package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/broker"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/clients"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/nodes"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/records"
)

// A cluster as one buys it, SASL over TLS: the sidecars speak TLS to it and log in as
// themselves, the clients log in through them with their own names, in plain to their sidecar
// or over its TLS.
func TestSASLOverTLS(t *testing.T) {
	deps.Need(t, deps.Kafka, deps.Python, deps.Kcat)
	dir := t.TempDir()
	ca, keystore := certificates(t, dir)
	c, err := broker.Start(filepath.Join(dir, "kafka"), broker.Options{Properties: map[string]string{
		"listener.security.protocol.map": "CLIENT:SASL_SSL,INNER:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"sasl.enabled.mechanisms":        "PLAIN,SCRAM-SHA-512",
		"ssl.keystore.type":              "PEM",
		"ssl.keystore.location":          keystore,
		"listener.name.client.plain.sasl.jaas.config": `org.apache.kafka.common.security.plain.PlainLoginModule required ` +
			`user_sidecar="sidecar-secret" user_kcat="kcat-secret";`,
		"listener.name.client.scram-sha-512.sasl.jaas.config": `org.apache.kafka.common.security.scram.ScramLoginModule required;`,
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Kill()
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	login := kgo.SASL(plain.Auth{User: "sidecar", Pass: "sidecar-secret"}.AsMechanism())
	adm := admin(t, c.Bootstrap, login, kgo.DialTLSConfig(&tls.Config{RootCAs: roots}))
	if _, err := adm.AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{
		{User: "scram", Mechanism: kadm.ScramSha512, Iterations: 4096, Password: "scram-secret"},
	}); err != nil {
		t.Fatal(err)
	}

	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte("sidecar-secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	secure := nodes.Settings{
		"tls":  map[string]any{"enabled": true, "ca": ca},
		"sasl": map[string]string{"mechanism": "PLAIN", "username": "sidecar", "password_file": password},
	}
	l := sealed(t, c.Bootstrap, "sasl-*", []string{"sasl-*"}, secure)

	for _, client := range []struct {
		clients.Client
		properties map[string]string
	}{
		{clients.Kcat, map[string]string{"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN",
			"sasl.username": "kcat", "sasl.password": "kcat-secret"}},
		{clients.Confluent, map[string]string{"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "SCRAM-SHA-512",
			"sasl.username": "scram", "sasl.password": "scram-secret"}},
	} {
		t.Run(client.Name, func(t *testing.T) {
			topic := createTopic(t, adm, "sasl-"+client.Name, client.Shape.Partitions, nil)
			sent := records.Generate(71, 200, client.Shape, records.NewCanaries())
			job := clients.Job{Bootstrap: l.produce, Topic: topic, Group: topic, Dir: t.TempDir(), Records: sent, Count: len(sent),
				Codec: "lz4", Properties: client.properties}
			begin := time.Now()
			if err := client.Produce(t.Context(), job); err != nil {
				t.Fatalf("produce: %v", err)
			}
			job.Bootstrap = l.consume
			got, err := client.Consume(t.Context(), job)
			if err == nil {
				err = records.Compare(sent, got, records.Since(begin), false)
			}
			if err != nil {
				t.Fatalf("consume: %v", err)
			}
		})
	}

	t.Run("a client with a wrong password", func(t *testing.T) {
		topic := createTopic(t, adm, "sasl-wrong", 1, nil)
		err := clients.Kcat.Produce(t.Context(), clients.Job{Bootstrap: l.produce, Topic: topic, Dir: t.TempDir(), Timeout: 20 * time.Second,
			Records:    records.Generate(73, 1, clients.Kcat.Shape, records.NewCanaries()),
			Properties: map[string]string{"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "kcat", "sasl.password": "wrong"}})
		if err == nil || errors.Is(err, clients.ErrTimeout) || !strings.Contains(strings.ToLower(err.Error()), "authentication") {
			t.Errorf("%v, want an authentication error", err)
		}
	})

	t.Run("a sidecar with a wrong password", func(t *testing.T) {
		wrong := filepath.Join(dir, "wrong")
		if err := os.WriteFile(wrong, []byte("not it\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		more := nodes.Settings{"tls": secure["tls"], "sasl": map[string]string{"mechanism": "PLAIN", "username": "sidecar", "password_file": wrong}}
		expectRefusal(t, nil, "proxy", "--config", nodes.Configuration(t, c.Bootstrap, nodes.NewRealm(t).Enroll(t, nodes.Role{Produce: "sasl-*"}), more))
	})

	t.Run("a sidecar that does not trust the broker", func(t *testing.T) {
		more := nodes.Settings{"tls": map[string]any{"enabled": true}, "sasl": secure["sasl"]}
		expectRefusal(t, []string{"certificate"}, "proxy", "--config", nodes.Configuration(t, c.Bootstrap, nodes.NewRealm(t).Enroll(t, nodes.Role{Produce: "sasl-*"}), more))
	})

	t.Run("TLS on the local side", func(t *testing.T) {
		more := nodes.Settings{"tls": secure["tls"], "sasl": secure["sasl"],
			"client_tls": map[string]string{"cert": keystore, "key": keystore}}
		local := sealed(t, c.Bootstrap, "sasl-*", []string{"sasl-*"}, more)
		topic := createTopic(t, adm, "sasl-local", 3, nil)
		sent := records.Generate(72, 200, clients.Confluent.Shape, records.NewCanaries())
		job := clients.Job{Bootstrap: local.produce, Topic: topic, Group: topic, Dir: t.TempDir(), Records: sent, Count: len(sent),
			Properties: map[string]string{"security.protocol": "SASL_SSL", "ssl.ca.location": ca, "sasl.mechanism": "SCRAM-SHA-512",
				"sasl.username": "scram", "sasl.password": "scram-secret"}}
		if err := clients.Confluent.Produce(t.Context(), job); err != nil {
			t.Fatalf("produce: %v", err)
		}
		job.Bootstrap = local.consume
		got, err := clients.Confluent.Consume(t.Context(), job)
		if err == nil {
			err = records.Compare(sent, got, records.Times{}, false)
		}
		if err != nil {
			t.Fatalf("consume: %v", err)
		}
	})
}

// certificates makes an authority and a certificate for the loopback address, and returns the
// PEM files of the authority, and of the certificate with its key.
func certificates(t *testing.T, dir string) (ca, keystore string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	authority := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "e2e authority"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	caDER, err := x509.CreateCertificate(rand.Reader, authority, authority, &caKey.PublicKey, caKey)
	must(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames: []string{"localhost"}, NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, authority, &key.PublicKey, caKey)
	must(err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	must(err)
	ca, keystore = filepath.Join(dir, "ca.pem"), filepath.Join(dir, "keystore.pem")
	caPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	must(os.WriteFile(ca, caPEM, 0o600))
	both := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	must(os.WriteFile(keystore, append(both, caPEM...), 0o600))
	return ca, keystore
}
