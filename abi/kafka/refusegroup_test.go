package kafka_test

import (
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

func TestGroupsOfFindCoordinatorAreFound(t *testing.T) {
	low, high, _ := kafka.Supported(kafka.KeyFindCoordinator)
	for version := low; version <= high; version++ {
		for kind := range int8(3) {
			want := []string{"billing"}
			q := kmsg.NewPtrFindCoordinatorRequest()
			q.Version, q.CoordinatorKey, q.CoordinatorType = version, "billing", kind
			if version >= 4 {
				want = append(want, "audit")
				q.CoordinatorKeys = want
			}
			ok := kind == 0 || version == 0
			if !ok {
				want = nil
			}
			body := q.AppendTo(nil)
			got, named, err := kafka.CoordinatorGroups(version, body)
			if err != nil || named != ok || !slices.Equal(got, want) {
				t.Errorf("v%d, type %d: %q, %t, %v", version, kind, got, named, err)
			}
			for n := range body {
				if got, _, err := kafka.CoordinatorGroups(version, body[:n]); err == nil {
					t.Errorf("v%d cut at %d: %q", version, n, got)
				}
			}
		}
	}
}

// TestRefusedGroupIsReadByClients has another implementation read every refusal.
func TestRefusedGroupIsReadByClients(t *testing.T) {
	const code = kafka.CodeGroupAuthorizationFailed
	refused := 0
	for key := int16(0); key <= lastKey; key++ {
		low, high, _ := kafka.Supported(key)
		for version := low; version <= high; version++ {
			if !kafka.RefusesGroups(key, version) {
				continue
			}
			groups := []string{"billing"}
			if key == kafka.KeyFindCoordinator && version >= 4 || key == kafka.KeyOffsetFetch && version >= 8 {
				groups = append(groups, "audit")
			}
			body := (&kafka.GroupRefusal{Key: key, Version: version, Groups: groups, Code: code}).Append(nil)
			r := kmsg.ResponseForKey(key)
			r.SetVersion(version)
			if err := r.ReadFrom(body); err != nil {
				t.Errorf("%s v%d: %v", kafka.APIName(key), version, err)
				continue
			}
			if again := r.AppendTo(nil); string(again) != string(body) {
				t.Errorf("%s v%d:\n%x, by others\n%x", kafka.APIName(key), version, body, again)
			}
			var got []int16
			switch r := r.(type) {
			case *kmsg.FindCoordinatorResponse:
				got = []int16{r.ErrorCode}
				for i, c := range r.Coordinators {
					if got[0] = c.ErrorCode; c.Key != groups[i] || c.NodeID != -1 {
						t.Errorf("v%d: %+v", version, c)
					}
				}
			case *kmsg.JoinGroupResponse:
				got = []int16{r.ErrorCode}
			case *kmsg.OffsetFetchResponse:
				got = []int16{r.ErrorCode}
				for i, g := range r.Groups {
					if got[0] = g.ErrorCode; g.Group != groups[i] {
						t.Errorf("v%d: %+v", version, g)
					}
				}
			case *kmsg.ConsumerGroupHeartbeatResponse:
				got = []int16{r.ErrorCode}
			case *kmsg.ShareGroupHeartbeatResponse:
				got = []int16{r.ErrorCode}
			}
			if !slices.Equal(got, []int16{code}) {
				t.Errorf("%s v%d: codes %d", kafka.APIName(key), version, got)
			}
			refused++
		}
	}
	if refused < 25 {
		t.Errorf("%d refusals", refused)
	}
}
