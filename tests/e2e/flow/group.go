package flow

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A Group is a consumer group of one of Kafka's two protocols.
type Group struct {
	Name     string
	Opts     []kgo.Opt
	Assigned atomic.Int64 // how often a member got partitions
}

// BothProtocols returns a group of the classic protocol and one of KIP-848, whose members
// hear of a rebalance within half a second.
func BothProtocols(t testing.TB, bootstrap, prefix string) []*Group {
	t.Helper()
	modern := &Group{Name: prefix + "-kip848", Opts: []kgo.Opt{kgo.ServerSideBalancer(), kgo.Balancers(kgo.StickyBalancer())}}
	ConfigureGroup(t, bootstrap, modern.Name, "consumer.heartbeat.interval.ms", "500")
	classic := &Group{Name: prefix + "-classic", Opts: []kgo.Opt{kgo.HeartbeatInterval(500 * time.Millisecond), kgo.SessionTimeout(20 * time.Second)}}
	return []*Group{classic, modern}
}

// ConfigureGroup sets one of the configurations that the broker keeps for a group.
func ConfigureGroup(t testing.TB, bootstrap, group, name, value string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(bootstrap))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	set := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	set.Name, set.Value = name, &value
	of := kmsg.NewIncrementalAlterConfigsRequestResource()
	of.ResourceType, of.ResourceName = kmsg.ConfigResourceTypeGroupConfig, group
	of.Configs = append(of.Configs, set)
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	req.Resources = append(req.Resources, of)
	resp, err := req.RequestWith(t.Context(), cl)
	if err != nil {
		t.Fatal(err)
	}
	if code := resp.Resources[0].ErrorCode; code != 0 {
		t.Fatalf("group %s: %s=%s: error %d", group, name, value, code)
	}
}
