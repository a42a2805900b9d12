package api

// Schema says which schema the database has, which one the leader's muster knows, and who keeps it from being applied.
type Schema struct {
	Applied    int64          `json:"applied"`
	Latest     int64          `json:"latest"`
	HeldBackBy []SchemaHolder `json:"heldBackBy"`
}

// SchemaHolder is a member that cannot work with the newer schema.
type SchemaHolder struct {
	NodeID        uint64 `json:"nodeId"`
	Name          string `json:"name"`
	BinaryVersion string `json:"binaryVersion"`
	MaxSchema     int64  `json:"maxSchema"`
	Status        string `json:"status"` // as in Member
	Reason        string `json:"reason"`
}

// Difference is one point on which the Raft configuration does not agree with the members table.
type Difference struct {
	NodeID uint64 `json:"nodeId"`
	Want   string `json:"want"` // role by the members table; empty: not a Raft server
	Have   string `json:"have"` // role in Raft
}
