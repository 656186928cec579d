package kafka

// A FindCoordinatorResponse gives the addresses of group and transaction coordinators.
// Before version 4 there is exactly one, without a key.
type FindCoordinatorResponse struct {
	Version      int16
	ThrottleMs   int32 // from version 1
	Coordinators []Coordinator
	Tags         Tags
}

// A Coordinator is one coordinator's address. A proxy replaces Host and Port before
// Append. With an error, NodeID and Port are -1 and Host is empty.
type Coordinator struct {
	Key          string // from version 4
	NodeID       int32
	Host         string
	Port         int32
	ErrorCode    int16
	ErrorMessage []byte // from version 1; nil is null
	Tags         Tags   // from version 4
}

// ParseFindCoordinatorResponse reads the body of a FindCoordinator response, all of it.
func ParseFindCoordinatorResponse(version int16, body []byte) (*FindCoordinatorResponse, error) {
	r, err := newReader("response", KeyFindCoordinator, version, body)
	if err != nil {
		return nil, err
	}
	a := &FindCoordinatorResponse{Version: version}
	if version >= 1 {
		a.ThrottleMs = r.int32()
	}
	if version < 4 {
		c := Coordinator{ErrorCode: r.int16()}
		if version >= 1 {
			c.ErrorMessage = r.nullableString()
		}
		c.NodeID = r.int32()
		c.Host = r.string()
		c.Port = r.int32()
		a.Coordinators = []Coordinator{c}
	} else {
		a.Coordinators = make([]Coordinator, r.array(14))
		for i := range a.Coordinators {
			a.Coordinators[i] = Coordinator{
				Key: r.string(), NodeID: r.int32(), Host: r.string(), Port: r.int32(),
				ErrorCode: r.int16(), ErrorMessage: r.nullableString(), Tags: r.tags(),
			}
		}
	}
	a.Tags = r.tags()
	if err := r.endOf("response", KeyFindCoordinator, version); err != nil {
		return nil, err
	}
	return a, nil
}

// Append appends the body to b. Before version 4, Coordinators must hold one element.
func (a *FindCoordinatorResponse) Append(b []byte) []byte {
	w := newWriter(b, KeyFindCoordinator, a.Version)
	if a.Version >= 1 {
		w.int32(a.ThrottleMs)
	}
	if a.Version < 4 {
		c := &a.Coordinators[0]
		w.int16(c.ErrorCode)
		if a.Version >= 1 {
			w.nullableString(c.ErrorMessage)
		}
		w.int32(c.NodeID)
		w.string(c.Host)
		w.int32(c.Port)
	} else {
		w.count(len(a.Coordinators))
		for i := range a.Coordinators {
			c := &a.Coordinators[i]
			w.string(c.Key)
			w.int32(c.NodeID)
			w.string(c.Host)
			w.int32(c.Port)
			w.int16(c.ErrorCode)
			w.nullableString(c.ErrorMessage)
			w.tags(c.Tags)
		}
	}
	w.tags(a.Tags)
	return w.b
}
