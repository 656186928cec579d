package kafka

// coordinatorOfGroup is the key_type of FindCoordinator that asks for a consumer group's.
const coordinatorOfGroup = 0

// CoordinatorGroups returns the ids of the groups whose coordinator a FindCoordinator request
// asks for; ok is false where it asks for another kind of coordinator. Every client asks this
// before anything else that RequestGroups finds.
func CoordinatorGroups(version int16, body []byte) (groups []string, ok bool, err error) {
	r, err := newReader("request", KeyFindCoordinator, version, body)
	if err != nil {
		return nil, false, err
	}
	kind := int8(coordinatorOfGroup)
	if version < 4 {
		groups = []string{r.string()}
	}
	if version >= 1 {
		kind = r.int8()
	}
	if version >= 4 {
		groups = make([]string, r.array(1))
		for i := range groups {
			groups[i] = r.string()
		}
	}
	r.tags()
	if err := r.endOf("request", KeyFindCoordinator, version); err != nil {
		return nil, false, err
	}
	if kind != coordinatorOfGroup {
		return nil, false, nil
	}
	return groups, true, nil
}

// A GroupRefusal is the body of the answer to a request for groups of which one is refused, in
// the words of its API. The request is refused whole.
type GroupRefusal struct {
	Key, Version int16
	Groups       []string // of the request
	Code         int16
}

// RefusesGroups reports whether a GroupRefusal answers this API in this version. The others are
// answered by closing the connection: a client then asks for the group's coordinator.
func RefusesGroups(key, version int16) bool {
	switch key {
	case KeyFindCoordinator, KeyJoinGroup, KeyConsumerGroupHeartbeat, KeyShareGroupHeartbeat:
		return true
	case KeyOffsetFetch:
		return version >= 2
	}
	return false
}

// Append appends the body to b. RefusesGroups must be true of the API.
func (a *GroupRefusal) Append(b []byte) []byte {
	w := newWriter(b, a.Key, a.Version)
	switch a.Key {
	case KeyFindCoordinator:
		none := Coordinator{NodeID: -1, Port: -1, ErrorCode: a.Code}
		r := FindCoordinatorResponse{Version: a.Version, Coordinators: []Coordinator{none}}
		if a.Version >= 4 {
			r.Coordinators = r.Coordinators[:0]
			for _, none.Key = range a.Groups {
				r.Coordinators = append(r.Coordinators, none)
			}
		}
		return r.Append(b)
	case KeyJoinGroup:
		a.appendJoin(&w)
	case KeyOffsetFetch:
		a.appendOffsets(&w)
	default: // the heartbeats of KIP-848 and KIP-932
		w.int32(0) // throttle_time_ms
		w.int16(a.Code)
		w.nullableString(nil) // error_message
		w.nullableString(nil) // member_id
		w.int32(0)            // member_epoch
		w.int32(0)            // heartbeat_interval_ms
		w.int8(-1)            // assignment
	}
	w.tags(nil)
	return w.b
}

func (a *GroupRefusal) appendJoin(w *writer) {
	if a.Version >= 2 {
		w.int32(0) // throttle_time_ms
	}
	w.int16(a.Code)
	w.int32(-1) // generation_id
	if a.Version >= 7 {
		w.nullableString(nil) // protocol_type
		w.nullableString(nil) // protocol_name
	} else {
		w.string("") // protocol_name
	}
	w.string("") // leader
	if a.Version >= 9 {
		w.bool(false) // skip_assignment
	}
	w.string("") // member_id
	w.count(0)   // members
}

func (a *GroupRefusal) appendOffsets(w *writer) {
	if a.Version >= 3 {
		w.int32(0) // throttle_time_ms
	}
	if a.Version < 8 {
		w.count(0) // topics
		w.int16(a.Code)
		return
	}
	w.count(len(a.Groups))
	for _, group := range a.Groups {
		w.string(group)
		w.count(0) // topics
		w.int16(a.Code)
		w.tags(nil)
	}
}
