package simd

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/tetratelabs/wazero"
	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/poly1305"
)

const tagSize = chacha20poly1305.Overhead

// both runs a test in wazero's compiler and in its interpreter, which share no code.
func both(t *testing.T, test func(t *testing.T, m *machine, interpreted bool)) {
	for name, config := range map[string]wazero.RuntimeConfig{
		"compiled": wazero.NewRuntimeConfig(), "interpreted": wazero.NewRuntimeConfigInterpreter(),
	} {
		t.Run(name, func(t *testing.T) { test(t, newMachine(t, config), name == "interpreted") })
	}
}

// lengths is every length to 4096 and random ones beyond; a few in the interpreter.
func lengths(r *rand.Rand, interpreted bool) (all []int) {
	for n := range 4097 {
		if !interpreted || n < 70 || n%256 < 3 || n%256 > 253 {
			all = append(all, n)
		}
	}
	for range 20 {
		all = append(all, 4097+r.IntN(40<<10))
	}
	if interpreted {
		return all
	}
	return append(all, 1<<20-1, 1<<20, 1<<20+200)
}

func fill(r *rand.Rand, b []byte) {
	// Runs of ones reach the carries and the final reduction.
	ones := r.IntN(4) == 0
	for i := range b {
		if b[i] = byte(r.Uint32()); ones {
			b[i] = 0xff
		}
	}
}

// zeros fails unless the scratch memory is overwritten.
func (m *machine) zeros(what string) {
	m.tb.Helper()
	for i, b := range m.memory[atScratch : atScratch+ScratchSize] {
		if b != 0 {
			m.tb.Fatalf("%s left scratch byte %d", what, i)
		}
	}
}

// TestKernelIsTheReadyMadeAEAD seals and opens in place, at any alignment, beside x/crypto,
// and wants nothing around the message to change.
func TestKernelIsTheReadyMadeAEAD(t *testing.T) {
	both(t, func(t *testing.T, m *machine, interpreted bool) {
		r := rand.New(rand.NewPCG(1, 2))
		const around = 64
		for _, n := range lengths(r, interpreted) {
			at, aadSize := atBuffer+r.IntN(64), r.IntN(90)
			fill(r, m.memory[atKeys:atKeys+56])
			aad := m.memory[atAAD : atAAD+aadSize]
			fill(r, aad)
			region := m.memory[at-around : at+n+tagSize+around]
			fill(r, region)
			before := bytes.Clone(region)
			plain := before[around : around+n]

			oracle, err := chacha20poly1305.NewX(m.memory[atKeys : atKeys+32])
			if err != nil {
				t.Fatal(err)
			}
			sealed := oracle.Seal(nil, m.memory[atKeys+32:atKeys+56], plain, aad)
			keys := bytes.Clone(m.memory[atKeys : atKeys+56])
			m.sealAt(at, n, aadSize)
			want := bytes.Clone(before)
			copy(want[around:], sealed)
			if !bytes.Equal(region, want) {
				t.Fatalf("length %d: sealed to something else", n)
			}
			m.zeros("seal")
			if !m.openAt(at, n, aadSize) {
				t.Fatalf("length %d: does not open", n)
			}
			copy(want[around:], plain)
			if !bytes.Equal(region, want) {
				t.Fatalf("length %d: opened to something else", n)
			}
			m.zeros("open")
			if !bytes.Equal(keys, m.memory[atKeys:atKeys+56]) {
				t.Fatalf("length %d: key or nonce changed", n)
			}
		}
	})
}

// TestTamperedMessageIsLeftAsItIs flips a bit of each byte of message, tag, associated data,
// key and nonce.
func TestTamperedMessageIsLeftAsItIs(t *testing.T) {
	both(t, func(t *testing.T, m *machine, interpreted bool) {
		r := rand.New(rand.NewPCG(3, 4))
		for _, n := range []int{0, 1, 15, 16, 17, 191, 192, 193, 448, 500, 1000} {
			const aadSize = 21
			fill(r, m.memory[atKeys:atKeys+56])
			fill(r, m.memory[atAAD:atAAD+aadSize])
			buf := m.memory[atBuffer : atBuffer+n+tagSize]
			m.sealAt(atBuffer, n, aadSize)
			for _, part := range [][]byte{buf, m.memory[atAAD : atAAD+aadSize], m.memory[atKeys : atKeys+56]} {
				for i := range part {
					part[i] ^= 1 << (i % 8)
					before := bytes.Clone(buf)
					if m.openAt(atBuffer, n, aadSize) {
						t.Fatalf("length %d: opened with byte %d of %d flipped", n, i, len(part))
					}
					if !bytes.Equal(buf, before) {
						t.Fatalf("length %d, byte %d flipped: the refused message changed", n, i)
					}
					m.zeros("a refusal")
					part[i] ^= 1 << (i % 8)
				}
			}
			if n > 0 && m.openAt(atBuffer, n-1, aadSize) || m.openAt(atBuffer, n, aadSize-1) {
				t.Errorf("length %d: opened cut short", n)
			}
		}
	})
}

// TestNothingOfAMessageKeyStays looks for the message's key, the authenticator's and the
// keystream in the whole memory, after messages that opened and one that did not.
func TestNothingOfAMessageKeyStays(t *testing.T) {
	both(t, func(t *testing.T, m *machine, _ bool) {
		r := rand.New(rand.NewPCG(7, 8))
		for _, n := range []int{0, 64, 192, 300, 5000} {
			fill(r, m.memory[atKeys:atKeys+56])
			fill(r, m.memory[atBuffer:atBuffer+n])
			key, nonce := m.memory[atKeys:atKeys+32], m.memory[atKeys+32:atKeys+56]
			sub, err := chacha20.HChaCha20(key, nonce[:16])
			if err != nil {
				t.Fatal(err)
			}
			stream := make([]byte, 64+n)
			cipher, err := chacha20.NewUnauthenticatedCipher(sub, append(make([]byte, 4), nonce[16:]...))
			if err != nil {
				t.Fatal(err)
			}
			cipher.XORKeyStream(stream, stream)
			check := func(what string) {
				for _, secret := range [][]byte{sub[:16], sub[16:], stream[:16], stream[16:32]} {
					if bytes.Contains(m.memory, secret) {
						t.Fatalf("%s of %d bytes left a key", what, n)
					}
				}
				for i := 64; i+16 <= len(stream); i += 16 {
					if bytes.Contains(m.memory[:atBuffer], stream[i:i+16]) {
						t.Fatalf("%s of %d bytes left the keystream", what, n)
					}
				}
			}
			m.sealAt(atBuffer, n, 0)
			check("a seal")
			m.memory[atBuffer+n] ^= 1
			if m.openAt(atBuffer, n, 0) {
				t.Fatal("opened with a flipped tag")
			}
			check("a refusal")
			m.memory[atBuffer+n] ^= 1
			if !m.openAt(atBuffer, n, 0) {
				t.Fatal("does not open")
			}
			check("an open")
		}
	})
}

// TestAuthenticatorIsPoly1305 takes keys that messages do not come to: with r of the largest
// limbs and messages of ones, sums of products are as large as they can be.
func TestAuthenticatorIsPoly1305(t *testing.T) {
	both(t, func(t *testing.T, m *machine, _ bool) {
		absorb, sum := m.helper(2), m.helper(4)
		r := rand.New(rand.NewPCG(9, 10))
		scratch := m.memory[atScratch : atScratch+stateSize]
		for i := range 2000 {
			var key [32]byte
			fill(r, key[:])
			message := m.memory[atBuffer : atBuffer+16*r.IntN(20)]
			fill(r, message)
			if i < 100 { // from the first multiplication to many
				message = m.memory[atBuffer : atBuffer+16*i]
				copy(key[:16], bytes.Repeat([]byte{0xff}, 16))
				copy(message, bytes.Repeat([]byte{0xff}, len(message)))
			}
			clear(scratch)
			for limb, mask := range rMask {
				word := uint64(binary.LittleEndian.Uint32(key[4*limb:]))
				binary.LittleEndian.PutUint64(scratch[atR+8*limb:], word&uint64(mask))
			}
			copy(scratch[atS:], key[16:])
			m.call(absorb, atBuffer, uint64(len(message)), atScratch)
			m.call(sum, atScratch)
			var want [poly1305.TagSize]byte
			poly1305.Sum(&want, message, &key)
			if !bytes.Equal(scratch[atSum:atSum+16], want[:]) {
				t.Fatalf("key %x, message %x: %x, want %x", key, message, scratch[atSum:atSum+16], want)
			}
		}
	})
}

func TestKernelIsTheReadyMadeCRC32C(t *testing.T) {
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	both(t, func(t *testing.T, m *machine, interpreted bool) {
		r := rand.New(rand.NewPCG(5, 6))
		for _, n := range lengths(r, interpreted) {
			at := atBuffer + r.IntN(64)
			b := m.memory[at : at+n]
			fill(r, b)
			if got, want := m.crcAt(0, at, n), crc32.Checksum(b, castagnoli); got != want {
				t.Fatalf("length %d: %08x, want %08x", n, got, want)
			}
			part := r.IntN(n + 1)
			if got, want := m.crcAt(m.crcAt(0, at, part), at+part, n-part), crc32.Checksum(b, castagnoli); got != want {
				t.Fatalf("length %d in two parts, the first of %d: %08x, want %08x", n, part, got, want)
			}
			m.zeros("crc32c")
		}
	})
}

// TestSparseMultipleIsOne computes the sum of powers of x^128 that crc32c relies on.
func TestSparseMultipleIsOne(t *testing.T) {
	const p = 0x1edc6f41 // without x^32
	sum, power := uint32(0), uint32(1)
	for degree := range uint32(crcDegree + 1) {
		for _, back := range append([]uint32{0}, crcBack[:]...) {
			if degree == crcDegree-back {
				sum ^= power
			}
		}
		for range 128 {
			power = power<<1 ^ p&-(power>>31)
		}
	}
	if sum != 0 {
		t.Errorf("the remainder is %08x", sum)
	}
}

// TestWhatIsEmittedIsTheSameEachTime: the artifact is reproducible only if the kernel is.
func TestWhatIsEmittedIsTheSameEachTime(t *testing.T) {
	if a, b := bare(), bare(); !bytes.Equal(a, b) {
		t.Error("two modules differ")
	}
}
