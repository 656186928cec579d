// Package memory searches a running sidecar for secrets that it should have erased
// (PROTOCOL.md §4, V-3): its whole memory, the linear memory of each module instance in it,
// and the directory of its state file. The sidecars are processes of their own; what they
// hold is learned from outside, from copies of their state files and from what the broker
// stores, so that nothing of the product has a door for it.
package memory
