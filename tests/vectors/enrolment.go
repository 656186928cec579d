package vectors

import (
	"embed"
	"errors"
	"fmt"
	"slices"
)

//go:embed issuer/*.json enrolment/*.json
var enrolmentData embed.FS

// A Decision is one record of the roster as an issuer reads it, and what it answers
// (PROTOCOL.md §2.12): renewals and the messages of enrolments. What it draws is given, so
// that answers are equal byte by byte.
type Decision struct {
	Name    string `json:"-"` // of the file, without .json
	Comment string `json:"comment"`
	Refusal string `json:"refusal,omitempty"` // of PROTOCOL.md §2.19; empty where the record is answered

	// The issuer, and the tickets that it made.
	Identity    Bytes          `json:"identity"` // Ed25519 seed
	Root        Bytes          `json:"root"`     // the realm's root public key
	Certificate Bytes          `json:"certificate"`
	Static      Bytes          `json:"static"` // X25519 private key
	Tickets     []IssuedTicket `json:"tickets,omitempty"`

	// What it read before, without an error, and then the record.
	Before []DecisionRecord `json:"before,omitempty"`
	Record DecisionRecord   `json:"record"`

	Want DecisionWant `json:"want"`
}

// An IssuedTicket is a ticket's line, when it was made, and for how long its Credential is good.
type IssuedTicket struct {
	Line     string `json:"line"`
	Made     uint64 `json:"made"`
	Validity uint64 `json:"validity"` // ms
}

// A DecisionRecord is one record of the roster, when it is read, and what is drawn meanwhile:
// for message 1 an ephemeral key, for a Credential its serial.
type DecisionRecord struct {
	Key   Bytes  `json:"key"`
	Value Bytes  `json:"value"`
	Now   uint64 `json:"now"`
	Drawn Bytes  `json:"drawn,omitempty"`
}

// A DecisionWant is an outcome: a kind of failure, what is written to the roster, and whose
// revocation is due.
type DecisionWant struct {
	Kind    Kind     `json:"kind"`
	Answers []Answer `json:"answers,omitempty"`
	Revokes []Bytes  `json:"revokes,omitempty"` // serials, ascending
}

// An Answer is a record that is written to the roster.
type Answer struct {
	Key   Bytes `json:"key"`
	Value Bytes `json:"value"`
}

// Decisions returns the corpus of what issuers judge, under the same rules as All.
func Decisions() ([]Decision, error) {
	return loadFolder(enrolmentData, "issuer", func(v *Decision, name string) error {
		v.Name = name
		switch {
		case v.Comment == "" || !slices.Contains(kinds, v.Want.Kind):
			return fmt.Errorf("no comment, or unknown kind %q", v.Want.Kind)
		case len(v.Identity) != 32 || len(v.Root) != 32 || len(v.Static) != 32:
			return errors.New("the issuer is not complete")
		}
		return nil
	})
}

// An Enrolment is a node that enrols with a ticket: what it writes, what it is given to read,
// and what becomes of it. Without records it is about the ticket alone.
type Enrolment struct {
	Name    string `json:"-"` // of the file, without .json
	Comment string `json:"comment"`
	Refusal string `json:"refusal,omitempty"`

	Ticket    string `json:"ticket"`    // its line
	Identity  Bytes  `json:"identity"`  // Ed25519 seed of the node
	Attempt   Bytes  `json:"attempt"`   // 8 bytes
	Ephemeral Bytes  `json:"ephemeral"` // X25519 private key
	Now       uint64 `json:"now"`

	Messages []Answer        `json:"messages,omitempty"` // what it reads, in order; only the last is judged
	Want     EnrolmentResult `json:"want"`
}

// An EnrolmentResult is an outcome: a kind of failure of the ticket or of the last message, and
// what the node wrote by then, message 1 first.
type EnrolmentResult struct {
	Kind       Kind     `json:"kind"`
	Wrote      []Answer `json:"wrote,omitempty"`
	Credential Bytes    `json:"credential,omitempty"` // that it holds at the end
}

// Enrolments returns the corpus of what enrolling nodes judge, under the same rules as All.
func Enrolments() ([]Enrolment, error) {
	return loadFolder(enrolmentData, "enrolment", func(v *Enrolment, name string) error {
		v.Name = name
		if v.Comment == "" || !slices.Contains(kinds, v.Want.Kind) {
			return fmt.Errorf("no comment, or unknown kind %q", v.Want.Kind)
		}
		return nil
	})
}
