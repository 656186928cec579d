package e2e

import (
	"bytes"
	"encoding/binary"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/nodes"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/raw"
)

// No answer that carries brokers' addresses, in any version that the sidecar passes, carries
// the broker's own: a client that learned it would go past the encryption without a sound.
func TestNoAnswerNamesABroker(t *testing.T) {
	b := sharedBroker(t)
	l := sealed(t, b.Bootstrap, "names-*", []string{"names-*"}, nil)
	topic := newTopic(t, b.Bootstrap, "names", 1, nil)
	_, text, err := net.SplitHostPort(b.Bootstrap)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	own := binary.BigEndian.AppendUint32(nil, uint32(port))

	metadata := kmsg.NewPtrMetadataRequest()
	mt := kmsg.NewMetadataRequestTopic()
	mt.Topic = &topic
	metadata.Topics = append(metadata.Topics, mt)
	coordinator := kmsg.NewPtrFindCoordinatorRequest()
	coordinator.CoordinatorKey, coordinator.CoordinatorKeys = "names-group", []string{"names-group"}
	ask := func(addr string, version int16, req kmsg.Request) (body []byte, ok bool) {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		req.SetVersion(version)
		body, err = raw.Exchange(c, req, 1, 10*time.Second)
		return body, err == nil
	}
	// The broker makes its coordinators when it is first asked for one.
	nodes.Poll(t, 30*time.Second, "a coordinator", func() bool {
		body, ok := ask(b.Bootstrap, 2, coordinator)
		return ok && bytes.Contains(body, own)
	})
	for _, req := range []kmsg.Request{metadata, coordinator, kmsg.NewPtrDescribeClusterRequest()} {
		name := kmsg.NameForKey(req.Key())
		answered, control := 0, 0
		for version := int16(0); version <= req.MaxVersion(); version++ {
			direct, ok := ask(b.Bootstrap, version, req)
			if ok && bytes.Contains(direct, own) {
				control++
			}
			body, ok := ask(l.produce, version, req)
			if !ok {
				continue // not a version that the sidecar passes
			}
			answered++
			if bytes.Contains(body, own) {
				t.Errorf("%s v%d names the broker's port %d", name, version, port)
			}
		}
		t.Logf("%s: %d versions answered; the broker itself names its port in %d", name, answered, control)
		if control == 0 {
			t.Errorf("%s: the broker itself does not name its port: the check is blind", name)
		}
		if answered == 0 {
			t.Errorf("%s: the sidecar answers no version", name)
		}
	}
}
