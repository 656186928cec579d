package kafka

// RecordsInOrder reports whether a record section is exactly n records, each as NextRecord wants
// it, with the offset deltas 0, 1, 2, ….
//
// It looks at every record that is produced, and calls are dear in WebAssembly: records without
// headers, of up to 8,191 bytes, as nearly all are, it reads without any.
func RecordsInOrder(section []byte, n int32) bool {
	// ahead is more than what stands before a key, and what stands behind it but for the value.
	const ahead = 12
	b, at := section, 0
records:
	for i := int32(0); i < n; i++ {
		for range 1 { // break: not a record that is read here
			if len(b)-at < ahead {
				break
			}
			p := at
			length := int(b[p])
			p++
			if length >= 0x80 {
				if b[p]-1 >= 0x7f {
					break
				}
				length = length&0x7f | int(b[p])<<7
				p++
			}
			end := p + length>>1 - 1 // of the record but for its last byte
			p++                      // attributes
			if b[p] < 0x80 {         // timestampDelta
				p++
			} else if b[p+1]-1 < 0x7f {
				p += 2
			} else {
				break
			}
			if i < 1<<6 {
				if b[p] != byte(i<<1) {
					break
				}
				p++
			} else if i < 1<<13 {
				if b[p] != byte(i<<1)|0x80 || b[p+1] != byte(i>>6) {
					break
				}
				p += 2
			} else {
				if i >= 1<<20 || b[p] != byte(i<<1)|0x80 || b[p+1] != byte(i>>6)|0x80 || b[p+2] != byte(i>>13) {
					break
				}
				p += 3
			}
			key := int(b[p])
			p++
			if key >= 0x80 {
				if b[p]-1 >= 0x7f {
					break
				}
				key = key&0x7f | int(b[p])<<7
				p++
			}
			if key != 1 { // not null
				if key&1 != 0 {
					break
				}
				p += key >> 1
			}
			if len(b)-p < ahead {
				break
			}
			value := int(b[p])
			p++
			if value >= 0x80 {
				if b[p]-1 >= 0x7f {
					break
				}
				value = value&0x7f | int(b[p])<<7
				p++
			}
			if value != 1 {
				if value&1 != 0 {
					break
				}
				p += value >> 1
			}
			if length&1 != 0 || p != end || p >= len(b) || b[p] != 0 { // no headers
				break
			}
			at = p + 1
			continue records
		}
		var r Record
		rest, err := NextRecord(b[at:], &r)
		if err != nil || r.OffsetDelta != i {
			return false
		}
		at = len(b) - len(rest)
	}
	return at == len(b)
}
