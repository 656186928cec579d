package kafka

// RequestGroups returns the ids of the groups that a request wants to join, to fetch for,
// or whose offsets it reads or writes. ok is false for every other API. It reads the body
// no further than the last group id, and leaves the rest to the broker.
func RequestGroups(key, version int16, body []byte) (groups []string, ok bool, err error) {
	switch key {
	case KeyJoinGroup, KeyOffsetCommit, KeyOffsetFetch, KeyConsumerGroupHeartbeat,
		KeyShareGroupHeartbeat, KeyShareFetch, KeyStreamsGroupHeartbeat:
	default:
		return nil, false, nil
	}
	r, err := newReader("request", key, version, body)
	if err != nil {
		return nil, true, err
	}
	if key == KeyOffsetFetch && version >= 8 {
		groups = r.offsetFetchGroups(version)
	} else {
		groups = []string{r.string()}
	}
	if r.bad {
		return nil, true, &frameError{"request", key, version, ErrFrame}
	}
	return groups, true, nil
}

// offsetFetchGroups reads the array of groups that OffsetFetch has from version 8.
func (r *reader) offsetFetchGroups(version int16) []string {
	groups := make([]string, r.array(3))
	for i := range groups {
		groups[i] = r.string()
		if version >= 9 {
			r.nullableString() // member_id
			r.int32()          // member_epoch
		}
		for topics := r.nullableArray(3); topics > 0; topics-- {
			r.topic(version >= 10)
			r.skipInts(4)
			r.tags()
		}
		r.tags()
	}
	return groups
}
