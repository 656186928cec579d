package proxywasm

import "sync"

// shared is the data that the machines of one proxy share.
type shared struct {
	mu   sync.Mutex
	data map[string]item
	last uint32
}

type item struct {
	value string
	cas   uint32 // of this value; never 0
}

func (s *shared) get(key string) (item, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	it, found := s.data[key]
	return it, found
}

// set writes if cas is 0, or that of the value, or nothing is there.
func (s *shared) set(key, value string, cas uint32) status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if it, found := s.data[key]; found && cas != 0 && cas != it.cas {
		return casMismatch
	}
	if s.data == nil {
		s.data = map[string]item{}
	}
	s.last = max(s.last+1, 1)
	s.data[key] = item{value, s.last}
	return ok
}
