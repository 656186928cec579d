package config

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// A Cluster is how to reach the brokers.
type Cluster struct {
	Bootstrap []string `yaml:"bootstrap"` // HOST:PORT of the cluster's brokers, at least one
	TLS       TLS      `yaml:"tls"`       // to the brokers
	SASL      SASL     `yaml:"sasl"`      // the process's own; the clients' is passed through
}

// TLS is the connection to the brokers. The system's roots are trusted unless CA is given.
type TLS struct {
	Enabled bool   `yaml:"enabled"`
	CA      string `yaml:"ca"`   // PEM file of roots, instead of the system's
	Cert    string `yaml:"cert"` // PEM file of a client certificate
	Key     string `yaml:"key"`  // PEM file of its key
}

// SASL is how the process authenticates to the brokers.
type SASL struct {
	Mechanism    string `yaml:"mechanism"` // PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
	Username     string `yaml:"username"`
	PasswordFile string `yaml:"password_file"` // its first line is the password
}

// ReadCluster reads the part of the file at path that says how to reach the brokers. The file
// may be a sidecar's, or hold these keys alone: other keys are not looked at.
func ReadCluster(path string) (*Cluster, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w\nhint: a sidecar's file will do, or one with bootstrap, tls and sasl alone", err)
	}
	// First without looking at other keys, then strictly: below tls and sasl a misspelt key
	// must not turn into a weaker connection.
	c := &Cluster{}
	var f struct {
		Bootstrap []string `yaml:"bootstrap"`
		TLS       any      `yaml:"tls"`
		SASL      any      `yaml:"sasl"`
	}
	if err := yaml.NewDecoder(bytes.NewReader(raw)).Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("configuration %s: %w", path, err)
	}
	part, err := yaml.Marshal(f)
	if err == nil {
		err = yaml.NewDecoder(bytes.NewReader(part), yaml.DisallowUnknownField()).Decode(c)
	}
	if err != nil {
		return nil, fmt.Errorf("configuration %s: %w\nhint: the keys are listed in examples/sidecar/README.md", path, err)
	}
	beside(path, c.files()...)
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("configuration %s: %w", path, err)
	}
	return c, nil
}

// files are the names of files in c.
func (c *Cluster) files() []*string {
	return []*string{&c.TLS.CA, &c.TLS.Cert, &c.TLS.Key, &c.SASL.PasswordFile}
}

// beside makes relative names of files relative to the configuration at path.
func beside(path string, names ...*string) {
	dir := filepath.Dir(path)
	for _, p := range names {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

func (c *Cluster) check() error {
	if len(c.Bootstrap) == 0 {
		return errors.New("bootstrap is empty\nhint: bootstrap: [broker.example.com:9092]")
	}
	for _, addr := range c.Bootstrap {
		if err := checkAddress(addr); err != nil {
			return err
		}
	}
	switch {
	case !c.TLS.Enabled && c.TLS != TLS{}:
		return errors.New("tls has settings but is not enabled\nhint: add `enabled: true` under tls")
	case (c.TLS.Cert == "") != (c.TLS.Key == ""):
		return errors.New("cert and key go together")
	case c.SASL != SASL{} && (c.SASL.Mechanism == "" || c.SASL.Username == "" || c.SASL.PasswordFile == ""):
		return errors.New("sasl needs mechanism, username and password_file")
	}
	return nil
}

func checkAddress(addr string) error {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return fmt.Errorf("%q is not HOST:PORT: %w", addr, err)
	}
	return nil
}

// BrokerTLS is the TLS configuration towards the brokers, nil for plain connections.
func (c *Cluster) BrokerTLS() (*tls.Config, error) {
	if !c.TLS.Enabled {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.TLS.CA != "" {
		pem, err := os.ReadFile(c.TLS.CA)
		if err != nil {
			return nil, fmt.Errorf("tls.ca: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.ca: no PEM certificate in %s", c.TLS.CA)
		}
	}
	if c.TLS.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.TLS.Cert, c.TLS.Key)
		if err != nil {
			return nil, fmt.Errorf("tls.cert: %w", err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}

// Kafka is how a client of ours reaches the cluster.
func (c *Cluster) Kafka() ([]kgo.Opt, error) {
	opts := []kgo.Opt{kgo.SeedBrokers(c.Bootstrap...)}
	conf, err := c.BrokerTLS()
	if err != nil {
		return nil, err
	}
	if conf != nil {
		opts = append(opts, kgo.DialTLSConfig(conf))
	}
	if c.SASL.Mechanism == "" {
		return opts, nil
	}
	raw, err := os.ReadFile(c.SASL.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("sasl.password_file: %w", err)
	}
	password, _, _ := strings.Cut(string(raw), "\n")
	password = strings.TrimSuffix(password, "\r")
	switch c.SASL.Mechanism {
	case "PLAIN":
		opts = append(opts, kgo.SASL(plain.Auth{User: c.SASL.Username, Pass: password}.AsMechanism()))
	case "SCRAM-SHA-256":
		opts = append(opts, kgo.SASL(scram.Auth{User: c.SASL.Username, Pass: password}.AsSha256Mechanism()))
	case "SCRAM-SHA-512":
		opts = append(opts, kgo.SASL(scram.Auth{User: c.SASL.Username, Pass: password}.AsSha512Mechanism()))
	default:
		return nil, fmt.Errorf("sasl.mechanism %q is none of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512", c.SASL.Mechanism)
	}
	return opts, nil
}
