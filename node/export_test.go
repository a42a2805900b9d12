package node

// Fail makes the member end as if Wait had returned err.
func (n *Node) Fail(err error) { n.ended.Store(&err) }
