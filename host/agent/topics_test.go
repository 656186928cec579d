package agent

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// cluster starts an embedded Kafka that ends with the test.
func cluster(t *testing.T, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(3)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func client(t *testing.T, c *kfake.Cluster, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := newClient([]kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...)}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func TestControlTopicsAreCreatedAsTheProtocolWants(t *testing.T) {
	c := cluster(t)
	cl := client(t, c)
	var log logBook
	for range 2 { // the second time they exist
		if err := ensureTopics(t.Context(), cl, controlTopics(8*24*time.Hour), nil, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
			t.Fatal(err)
		}
	}
	if s := log.String(); strings.Count(s, "control topic created") != 2 {
		t.Errorf("what was created is not said, or said again:\n%s", s)
	}
	for topic, want := range map[string]struct {
		partitions int
		configs    map[string]string
	}{
		"_e2ee.roster": {1, map[string]string{"cleanup.policy": "compact"}},
		"_e2ee.grants": {16, map[string]string{"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime", "retention.ms": "691200000"}},
	} {
		if got := len(c.PartitionInfos(topic)); got != want.partitions {
			t.Errorf("%s has %d partitions, want %d", topic, got, want.partitions)
		}
		d := describe(t.Context(), cl, topic)
		for k, v := range want.configs {
			if got, err := d.get(topic, k); err != nil || got != v {
				t.Errorf("%s: %s=%s (%v), want %s", topic, k, got, err, v)
			}
		}
	}
}

func TestWrongControlTopicsAreRefused(t *testing.T) {
	good := controlTopics(time.Hour)
	for name, tc := range map[string]struct {
		topic      string
		partitions int32
		configs    map[string]string
		want       string
	}{
		"partitions":     {grantsTopic, 8, good[1].configs, "has 8 partitions instead of 16"},
		"roster policy":  {rosterTopic, 1, map[string]string{"cleanup.policy": "delete"}, "has cleanup.policy=delete instead of compact"},
		"grants policy":  {grantsTopic, 16, map[string]string{"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime"}, "instead of delete"},
		"timestamp type": {grantsTopic, 16, map[string]string{"cleanup.policy": "delete"}, "instead of LogAppendTime"},
		"message size":   {rosterTopic, 1, map[string]string{"cleanup.policy": "compact", "max.message.bytes": "65536"}, "max.message.bytes=65536"},
	} {
		t.Run(name, func(t *testing.T) {
			c := cluster(t)
			if err := c.CreateTopic(tc.topic, tc.partitions, tc.configs); err != nil {
				t.Fatal(err)
			}
			err := ensureTopics(t.Context(), client(t, c), good, nil, slog.Default())
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "\nhint: ") {
				t.Fatalf("error %v, want it to say %q and end with a hint", err, tc.want)
			}
		})
	}
}

func TestMissingACLsAreListed(t *testing.T) {
	credential := &wire.Credential{Roles: wire.RoleProduce | wire.RoleConsume,
		Topics: []wire.Pattern{{Name: "orders"}, {Prefix: true, Name: "eu."}}, Groups: []wire.Pattern{{Name: "billing"}}}
	allow := func(name string, ops ...kmsg.ACLOperation) (out []kfake.ACL) {
		for _, op := range ops {
			out = append(out, kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: op, Allow: true})
		}
		return out
	}
	for name, tc := range map[string]struct {
		exist bool
		acls  []kfake.ACL
	}{
		"nothing":             {false, nil},
		"no create":           {false, append(allow(rosterTopic, kmsg.ACLOperationRead, kmsg.ACLOperationWrite), allow(grantsTopic, kmsg.ACLOperationRead, kmsg.ACLOperationWrite)...)},
		"no describe configs": {true, append(allow(rosterTopic, kmsg.ACLOperationRead), allow(grantsTopic, kmsg.ACLOperationRead)...)},
	} {
		t.Run(name, func(t *testing.T) {
			c := cluster(t, kfake.EnableSASL(), kfake.EnableACLs(), kfake.User("PLAIN", "agent", "secret", tc.acls...))
			if tc.exist {
				for _, ct := range controlTopics(time.Hour) {
					if err := c.CreateTopic(ct.name, ct.partitions, ct.configs); err != nil {
						t.Fatal(err)
					}
				}
			}
			cl := client(t, c, kgo.SASL(plain.Auth{User: "agent", Pass: "secret"}.AsMechanism()))
			err := ensureTopics(t.Context(), cl, controlTopics(time.Hour), aclsFor(credential), slog.Default())
			if err == nil || !unauthorized(err) {
				t.Fatalf("error %v, want one for want of authorisation", err)
			}
			for _, want := range []string{
				"Read, Write, Describe, DescribeConfigs, Create on Topic _e2ee.roster (literal)",
				"Read, Write, Describe, DescribeConfigs, Create on Topic _e2ee.grants (literal)",
				"Read, Describe, DescribeConfigs on Topic orders (literal)",
				"Read, Describe, DescribeConfigs on Topic eu. (prefixed)",
				"Describe on Group billing (literal)",
				"\nhint: kafka-acls.sh",
			} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q:\n%v", want, err)
				}
			}
		})
	}
}

func TestUnreachableBrokerIsAnErrorInTime(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts and never answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	for name, addr := range map[string]string{"refused": gone.Addr().String(), "silent": silent.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl, err := newClient([]kgo.Opt{kgo.SeedBrokers(addr)})
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			began := time.Now()
			err = ping(context.Background(), cl)
			if err == nil || !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), "\nhint: ") {
				t.Errorf("error %v, want one that names %s and ends with a hint", err, addr)
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestABrokerThatHasNotHeardOfANewTopicIsAskedAgain(t *testing.T) {
	c := cluster(t)
	asked := 0
	c.ControlKey(int16(kmsg.DescribeConfigs), func(req kmsg.Request) (kmsg.Response, error, bool) {
		if asked++; asked > 2 {
			return nil, nil, false
		}
		c.KeepControl()
		resp := req.ResponseKind().(*kmsg.DescribeConfigsResponse)
		for _, r := range req.(*kmsg.DescribeConfigsRequest).Resources {
			of := kmsg.NewDescribeConfigsResponseResource()
			of.ErrorCode, of.ResourceType, of.ResourceName = kerr.UnknownTopicOrPartition.Code, r.ResourceType, r.ResourceName
			resp.Resources = append(resp.Resources, of)
		}
		return resp, nil, true
	})
	if err := ensureTopics(t.Context(), client(t, c), controlTopics(time.Hour), nil, slog.New(slog.DiscardHandler)); err != nil || asked < 3 {
		t.Errorf("asked %d times: %v", asked, err)
	}
}

func TestWrongPasswordSaysSo(t *testing.T) {
	c := cluster(t, kfake.EnableSASL(), kfake.User("PLAIN", "agent", "secret"))
	c.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		resp.ErrorCode = kerr.SaslAuthenticationFailed.Code // as Kafka says it; kfake hangs up
		return resp, nil, true
	})
	cl := client(t, c, kgo.SASL(plain.Auth{User: "agent", Pass: "wrong"}.AsMechanism()))
	err := ping(t.Context(), cl)
	if err == nil || !strings.Contains(err.Error(), "SASL_AUTHENTICATION_FAILED") || !strings.Contains(err.Error(), "\nhint: check the SASL user name") {
		t.Fatalf("error %v", err)
	}
}

func TestCompactionIsSeenInEveryPolicy(t *testing.T) {
	for policy, want := range map[string]bool{"delete": false, "compact": true, "compact,delete": true, "delete, compact": true, "": false} {
		if compacts(policy) != want {
			t.Errorf("cleanup.policy=%s: %v", policy, !want)
		}
	}
}
