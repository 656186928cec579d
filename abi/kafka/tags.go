package kafka

// Tags is a section of tagged fields as it stood in the frame (KIP-482): an unsigned
// varint with the number of fields, then for each its tag, its size and its bytes. Empty
// means none. Fields are kept as they are, known or not.
type Tags []byte

// tags reads a section, which only flexible versions have.
func (r *reader) tags() Tags {
	if !r.flexible {
		return nil
	}
	mark := r.b
	r.eachTag(func(uint32, []byte) {})
	return r.since(mark)
}

// tagsWithout reads a section and leaves out the fields with the given tag.
func (r *reader) tagsWithout(drop uint32) Tags {
	if !r.flexible {
		return nil
	}
	mark, found, kept := r.b, false, 0
	r.eachTag(func(tag uint32, _ []byte) {
		if tag == drop {
			found = true
		} else {
			kept++
		}
	})
	all := r.since(mark)
	if !found || r.bad {
		return all
	}
	w := writer{b: make([]byte, 0, len(all))}
	w.uvarint(uint32(kept))
	again := reader{b: all}
	again.eachTag(func(tag uint32, field []byte) {
		if tag != drop {
			w.uvarint(tag)
			w.uvarint(uint32(len(field)))
			w.b = append(w.b, field...)
		}
	})
	return w.b
}

// eachTag calls f for each tagged field of the section at the front.
func (r *reader) eachTag(f func(tag uint32, field []byte)) {
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		tag, size := r.uvarint(), r.uvarint()
		if field := r.take(int(size)); !r.bad {
			f(tag, field)
		}
	}
}
