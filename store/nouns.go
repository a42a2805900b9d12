package store

// The nouns of the cluster. Each is a view of the store with the methods that concern it, and is reached as a field of
// Store. Who reads says from which state: Linearisable, AsLeader or Stale.
type (
	// Members are the machines of the cluster: who joins, announces itself, is drained, removed and talked to.
	Members struct{ s *Store }
	// Leases say what still runs on a member.
	Leases struct{ s *Store }
	// JoinTokens admit machines to the cluster.
	JoinTokens struct{ s *Store }
	// APITokens are the credentials of the API.
	APITokens struct{ s *Store }
	// APIKeys are credentials in Elasticsearch's form, enrollment tokens among them.
	APIKeys struct{ s *Store }
	// Enrollments are what was handed out to other software.
	Enrollments struct{ s *Store }
	// Peerings are connections to other clusters, with what those export.
	Peerings struct{ s *Store }
	// Keys are the keys of the cluster and the data-encryption key that all secrets are sealed under.
	Keys struct{ s *Store }
	// Secrets are values that operators keep in the cluster.
	Secrets struct{ s *Store }
	// Authorities are the certificate authorities with their rotations and what members trust.
	Authorities struct{ s *Store }
	// Certificates are the leaves that the authorities have issued.
	Certificates struct{ s *Store }
	// Settings are what operators and members have set, by name.
	Settings struct{ s *Store }
	// Audit says who did what.
	Audit struct{ s *Store }
	// Events are the audit as a stream.
	Events struct{ s *Store }
	// Archives are snapshots of the state and what is made of them.
	Archives struct{ s *Store }
)

// nouns are the fields of Store.
type nouns struct {
	Members      Members
	Leases       Leases
	JoinTokens   JoinTokens
	APITokens    APITokens
	APIKeys      APIKeys
	Enrollments  Enrollments
	Peerings     Peerings
	Keys         Keys
	Secrets      Secrets
	Authorities  Authorities
	Certificates Certificates
	Settings     Settings
	Audit        Audit
	Events       Events
	Archives     Archives
}

func nounsOf(s *Store) nouns {
	return nouns{
		Members:      Members{s},
		Leases:       Leases{s},
		JoinTokens:   JoinTokens{s},
		APITokens:    APITokens{s},
		APIKeys:      APIKeys{s},
		Enrollments:  Enrollments{s},
		Peerings:     Peerings{s},
		Keys:         Keys{s},
		Secrets:      Secrets{s},
		Authorities:  Authorities{s},
		Certificates: Certificates{s},
		Settings:     Settings{s},
		Audit:        Audit{s},
		Events:       Events{s},
		Archives:     Archives{s},
	}
}
