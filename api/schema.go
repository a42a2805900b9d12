package api

// Schema has the schema versions of the database and of the leader's binary, and the members that block a newer one.
type Schema struct {
	Applied    int64          `json:"applied"`
	Latest     int64          `json:"latest"`
	HeldBackBy []SchemaHolder `json:"heldBackBy"`
}

// SchemaHolder is a member that blocks the newer schema.
type SchemaHolder struct {
	NodeID        uint64 `json:"nodeId"`
	Name          string `json:"name"`
	BinaryVersion string `json:"binaryVersion"`
	MaxSchema     int64  `json:"maxSchema"`
	Status        string `json:"status"` // as in Member
	Reason        string `json:"reason"`
}

// Difference is one difference between the Raft configuration and the members table.
type Difference struct {
	NodeID uint64 `json:"nodeId"`
	Want   string `json:"want"` // role from the members table; empty: not a Raft server
	Have   string `json:"have"` // role in Raft
}
