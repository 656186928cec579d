// Package wire holds every byte layout of KX1 (PROTOCOL.md) that outlives a process: the
// headers of sealed values, partition contexts and additional data, and the control
// messages. Integers are big-endian.
//
// It imports the standard library and package abi only, does no I/O, reads no clock, and
// draws no randomness. Parsers accept one encoding per meaning and leave their input alone.
package wire
