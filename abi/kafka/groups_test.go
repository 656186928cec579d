package kafka_test

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// setGroups puts group ids into a request, wherever its version has them.
func setGroups(q kmsg.Request, version int16, ids []string) []string {
	switch q := q.(type) {
	case *kmsg.JoinGroupRequest:
		q.Group = ids[0]
	case *kmsg.OffsetCommitRequest:
		q.Group = ids[0]
	case *kmsg.OffsetFetchRequest:
		q.Group = ids[0]
		if version >= 8 {
			for i := range q.Groups {
				q.Groups[i].Group = ids[i]
			}
			return ids[:len(q.Groups)]
		}
	case *kmsg.ConsumerGroupHeartbeatRequest:
		q.Group = ids[0]
	case *kmsg.ShareGroupHeartbeatRequest:
		q.GroupID = ids[0]
	case *kmsg.ShareFetchRequest:
		q.GroupID = &ids[0]
	case *kmsg.StreamsGroupHeartbeatRequest:
		q.Group = ids[0]
	default:
		return nil
	}
	return ids[:1]
}

func TestGroupsOfEveryRequestAreFound(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for key := int16(0); key <= lastKey; key++ {
		low, high, ok := kafka.Supported(key)
		if !ok {
			continue
		}
		for version := low; version <= high; version++ {
			for range 50 {
				q := kmsg.RequestForKey(key)
				fill(rng, reflect.ValueOf(q).Elem())
				q.SetVersion(version)
				want := setGroups(q, version, []string{"billing", "", "audit-with-a-longer-name"})
				body := q.AppendTo(nil)
				got, named, err := kafka.RequestGroups(key, version, body)
				if err != nil || named != (want != nil) || !slices.Equal(got, want) {
					t.Fatalf("%s v%d: %q %t %v, want %q", kafka.APIName(key), version, got, named, err, want)
				}
				for n := range body {
					got, _, err := kafka.RequestGroups(key, version, body[:n])
					if err == nil && !slices.Equal(got, want) {
						t.Fatalf("%s v%d, cut to %d of %d bytes: %q, want %q", kafka.APIName(key), version, n, len(body), got, want)
					}
				}
			}
		}
	}
}

func TestGroupsOfUnknownVersionsAreRefused(t *testing.T) {
	if _, ok, err := kafka.RequestGroups(kafka.KeyOffsetFetch, 11, nil); err == nil || !ok {
		t.Fatal(ok, err)
	}
}
