package agent

import (
	"fmt"
	"strings"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// An acl is one thing that the agent's own principal must be allowed, in Kafka's words.
type acl struct {
	operations string
	resource   string // Topic or Group
	name       string
	prefixed   bool
}

func (a acl) String() string {
	name, pattern := a.name, "literal"
	switch {
	case a.prefixed && a.name == "":
		name = "*" // Kafka's name for all
	case a.prefixed:
		pattern = "prefixed"
	}
	return fmt.Sprintf("%s on %s %s (%s)", a.operations, a.resource, name, pattern)
}

// An aclList is everything that one node's agent needs.
type aclList []acl

// controlOperations is what every participant needs on a control topic.
const controlOperations = "Read, Write, Describe, DescribeConfigs, Create"

// aclsFor lists what an agent with this credential needs: the control topics, the policy
// of the topics it seals for, and retention, offsets, values and groups of those it erases
// keys of (PROTOCOL.md §2.8.4).
func aclsFor(c *wire.Credential) aclList {
	need := aclList{
		{controlOperations, "Topic", rosterTopic, false},
		{controlOperations, "Topic", grantsTopic, false},
	}
	consume := c.Roles.Has(wire.RoleConsume)
	operations := "Describe, DescribeConfigs"
	if consume {
		operations = "Read, Describe, DescribeConfigs"
	}
	for _, p := range c.Topics {
		need = append(need, acl{operations, "Topic", p.Name, p.Prefix})
	}
	if consume {
		for _, p := range c.Groups {
			need = append(need, acl{"Describe", "Group", p.Name, p.Prefix})
		}
	}
	return need
}

// refused wraps an authorisation error with the whole list, so that one visit to the
// cluster's administrator is enough.
func (l aclList) refused(err error) error {
	var b strings.Builder
	for _, a := range l {
		b.WriteString("\n  " + a.String())
	}
	return fmt.Errorf("%w\nthe agent's principal (User:PRINCIPAL) needs:%s\nhint: kafka-acls.sh --bootstrap-server … --add --allow-principal User:PRINCIPAL --operation … --topic … (or --group …; --resource-pattern-type prefixed), once for each; Create may be left out where the topic exists", err, b.String())
}
