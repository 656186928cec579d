package main

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/host/config"
)

// connect is the flags of the commands that talk to the control topics.
type connect struct {
	Bootstrap []string `placeholder:"HOST:PORT" xor:"cluster" help:"Brokers of the cluster, where neither TLS nor SASL is needed. May be repeated."`
	Config    string   `type:"path" placeholder:"FILE" xor:"cluster" help:"YAML file with bootstrap, tls and sasl; a sidecar's will do."`
}

// kafka is how to reach the cluster that the flags name.
func (c *connect) kafka() ([]kgo.Opt, error) {
	switch {
	case c.Config != "":
		cluster, err := config.ReadCluster(c.Config)
		if err != nil {
			return nil, err
		}
		return cluster.Kafka()
	case len(c.Bootstrap) != 0:
		return (&config.Cluster{Bootstrap: c.Bootstrap}).Kafka()
	}
	return nil, errors.New("no cluster\nhint: --bootstrap HOST:PORT, or --config FILE with bootstrap, tls and sasl")
}
