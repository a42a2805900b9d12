package api

// SQLResult is the answer to a query. A value is nil, a json.Number, a string or a bool.
type SQLResult struct {
	Columns   []string `json:"columns"`
	Rows      [][]any  `json:"rows"`
	Truncated bool     `json:"truncated"` // there were more rows than the server returns
}

// PeerMember is a member of another cluster, as that cluster exports it.
type PeerMember struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	NodeID      uint64 `json:"nodeId"`
	RaftAddress string `json:"raftAddress"`
	APIAddress  string `json:"apiAddress"`
	Health      string `json:"health"` // "alive", "down", "left" or "unknown", as reported by its own cluster
}
