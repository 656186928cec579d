package kafka

import "strconv"

// never stands where an API has no flexible version, none where no version is passed.
const never, none = -1, -1

// The APIs that this package handles beyond their header.
const (
	KeyProduce                = 0
	KeyFetch                  = 1
	KeyMetadata               = 3
	KeyOffsetCommit           = 8
	KeyOffsetFetch            = 9
	KeyFindCoordinator        = 10
	KeyJoinGroup              = 11
	KeySaslHandshake          = 17
	KeyApiVersions            = 18
	KeyDescribeQuorum         = 55
	KeyDescribeCluster        = 60
	KeyConsumerGroupHeartbeat = 68
	KeyShareGroupHeartbeat    = 76
	KeyShareFetch             = 78
	KeyShareAcknowledge       = 79
	KeyStreamsGroupHeartbeat  = 88
)

// apis has a row for each key of Kafka 4.3.1: the API's name, its first flexible version
// (which decides the headers, KIP-482), and the versions a proxy passes. Those are the
// stable versions of a client listener, and there are none for
//
//   - APIs among brokers and controllers, which may carry records or addresses that are
//     not looked at here (FetchSnapshot, Envelope, BrokerRegistration, …), and changes of
//     the raft voters, whose requests carry addresses;
//   - telemetry: its payload is opaque, and clients do without it when it is not offered.
//
// SaslHandshake 0 is left out because frames without a header follow it. No API that is
// passed carries record bytes or broker addresses besides those this package parses.
var apis = [...]struct {
	name     string
	flexible int16
	min, max int16
}{
	0:  {"Produce", 9, 3, 13},
	1:  {"Fetch", 12, 4, 18},
	2:  {"ListOffsets", 6, 1, 11},
	3:  {"Metadata", 9, 0, 13},
	4:  {"LeaderAndIsr", 4, none, none},
	5:  {"StopReplica", 2, none, none},
	6:  {"UpdateMetadata", 6, none, none},
	7:  {"ControlledShutdown", 3, none, none},
	8:  {"OffsetCommit", 8, 2, 10},
	9:  {"OffsetFetch", 6, 1, 10},
	10: {"FindCoordinator", 3, 0, 6},
	11: {"JoinGroup", 6, 0, 9},
	12: {"Heartbeat", 4, 0, 4},
	13: {"LeaveGroup", 4, 0, 5},
	14: {"SyncGroup", 4, 0, 5},
	15: {"DescribeGroups", 5, 0, 6},
	16: {"ListGroups", 3, 0, 5},
	17: {"SaslHandshake", never, 1, 1},
	18: {"ApiVersions", 3, 0, 4},
	19: {"CreateTopics", 5, 2, 7},
	20: {"DeleteTopics", 4, 1, 6},
	21: {"DeleteRecords", 2, 0, 2},
	22: {"InitProducerId", 2, 0, 5},
	23: {"OffsetForLeaderEpoch", 4, 2, 4},
	24: {"AddPartitionsToTxn", 3, 0, 5},
	25: {"AddOffsetsToTxn", 3, 0, 4},
	26: {"EndTxn", 3, 0, 5},
	27: {"WriteTxnMarkers", 1, none, none},
	28: {"TxnOffsetCommit", 3, 0, 5},
	29: {"DescribeAcls", 2, 1, 3},
	30: {"CreateAcls", 2, 1, 3},
	31: {"DeleteAcls", 2, 1, 3},
	32: {"DescribeConfigs", 4, 1, 4},
	33: {"AlterConfigs", 2, 0, 2},
	34: {"AlterReplicaLogDirs", 2, 1, 2},
	35: {"DescribeLogDirs", 2, 1, 5},
	36: {"SaslAuthenticate", 2, 0, 2},
	37: {"CreatePartitions", 2, 0, 3},
	38: {"CreateDelegationToken", 2, 1, 3},
	39: {"RenewDelegationToken", 2, 1, 2},
	40: {"ExpireDelegationToken", 2, 1, 2},
	41: {"DescribeDelegationToken", 2, 1, 3},
	42: {"DeleteGroups", 2, 0, 2},
	43: {"ElectLeaders", 2, 0, 2},
	44: {"IncrementalAlterConfigs", 1, 0, 1},
	45: {"AlterPartitionReassignments", 0, 0, 1},
	46: {"ListPartitionReassignments", 0, 0, 0},
	47: {"OffsetDelete", never, 0, 0},
	48: {"DescribeClientQuotas", 1, 0, 1},
	49: {"AlterClientQuotas", 1, 0, 1},
	50: {"DescribeUserScramCredentials", 0, 0, 0},
	51: {"AlterUserScramCredentials", 0, 0, 0},
	52: {"Vote", 0, none, none},
	53: {"BeginQuorumEpoch", 1, none, none},
	54: {"EndQuorumEpoch", 1, none, none},
	55: {"DescribeQuorum", 0, 0, 2},
	56: {"AlterPartition", 0, none, none},
	57: {"UpdateFeatures", 0, 0, 2},
	58: {"Envelope", 0, none, none},
	59: {"FetchSnapshot", 0, none, none},
	60: {"DescribeCluster", 0, 0, 2},
	61: {"DescribeProducers", 0, 0, 0},
	62: {"BrokerRegistration", 0, none, none},
	63: {"BrokerHeartbeat", 0, none, none},
	64: {"UnregisterBroker", 0, 0, 0},
	65: {"DescribeTransactions", 0, 0, 0},
	66: {"ListTransactions", 0, 0, 2},
	67: {"AllocateProducerIds", 0, none, none},
	68: {"ConsumerGroupHeartbeat", 0, 0, 1},
	69: {"ConsumerGroupDescribe", 0, 0, 1},
	70: {"ControllerRegistration", 0, none, none},
	71: {"GetTelemetrySubscriptions", 0, none, none},
	72: {"PushTelemetry", 0, none, none},
	73: {"AssignReplicasToDirs", 0, none, none},
	74: {"ListConfigResources", 0, 0, 1},
	75: {"DescribeTopicPartitions", 0, 0, 0},
	76: {"ShareGroupHeartbeat", 0, 1, 1},
	77: {"ShareGroupDescribe", 0, 1, 1},
	78: {"ShareFetch", 0, 1, 2},
	79: {"ShareAcknowledge", 0, 1, 2},
	80: {"AddRaftVoter", 0, none, none},
	81: {"RemoveRaftVoter", 0, none, none},
	82: {"UpdateRaftVoter", 0, none, none},
	83: {"InitializeShareGroupState", 0, none, none},
	84: {"ReadShareGroupState", 0, none, none},
	85: {"WriteShareGroupState", 0, none, none},
	86: {"DeleteShareGroupState", 0, none, none},
	87: {"ReadShareGroupStateSummary", 0, none, none},
	88: {"StreamsGroupHeartbeat", 0, 0, 0},
	89: {"StreamsGroupDescribe", 0, 0, 0},
	90: {"DescribeShareGroupOffsets", 0, 0, 1},
	91: {"AlterShareGroupOffsets", 0, 0, 0},
	92: {"DeleteShareGroupOffsets", 0, 0, 0},
}

// APIName returns Kafka's name of an API, or its number where it has none.
func APIName(key int16) string {
	if key >= 0 && int(key) < len(apis) {
		return apis[key].name
	}
	return "API " + strconv.Itoa(int(key))
}

// Supported returns the versions of an API that a proxy passes between client and broker;
// ok is false where it passes none.
func Supported(key int16) (min, max int16, ok bool) {
	if key < 0 || int(key) >= len(apis) || apis[key].max == none {
		return 0, 0, false
	}
	return apis[key].min, apis[key].max, true
}

// flexible tells whether a version has compact lengths and tagged fields. The key must
// have a row.
func flexible(key, version int16) bool {
	f := apis[key].flexible
	return f != never && version >= f
}
