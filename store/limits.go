package store

// Options that bound how many rows there may be of what callers make. Each has a default that a cluster of thousands of
// members does not meet.
const (
	SettingLimitAPITokens    = "limits.api_tokens"
	SettingLimitAPIKeys      = "limits.api_keys"
	SettingLimitJoinTokens   = "limits.join_tokens"
	SettingLimitCertificates = "limits.certificates"
	SettingLimitEnrollments  = "limits.enrollments"
	SettingLimitLeases       = "limits.leases"
	SettingLimitSecrets      = "limits.secrets"
	SettingLimitPeerings     = "limits.peerings"
	SettingLimitAnswers      = "limits.answers"
)

// autoAnswers is how many answers are kept per caller to requests that members have passed on. They serve for seconds, so
// that the oldest may go.
const autoAnswers = 10_000

var limitSettings = []Setting{
	limitSetting(SettingLimitAnswers, 10_000, "how many answers to the Idempotency-Keys of one credential are remembered, a day each"),
	limitSetting(SettingLimitAPIKeys, 10_000, "how many API keys and enrollment tokens of one credential there may be, revoked and expired ones of the last 30 days among them"),
	limitSetting(SettingLimitAPITokens, 10_000, "how many API tokens there may be, expired ones of the last 30 days among them"),
	limitSetting(SettingLimitCertificates, 1000, "how many certificates one member may be given, expired ones of the last 30 days among them"),
	limitSetting(SettingLimitEnrollments, 100_000, "how many enrollments there may be, expired ones of the last 30 days among them"),
	limitSetting(SettingLimitJoinTokens, 10_000, "how many join tokens of one credential there may be, expired ones of the last 30 days among them"),
	limitSetting(SettingLimitLeases, 10_000, "how many leases there may be on one member"),
	limitSetting(SettingLimitPeerings, 1000, "how many peerings there may be, deleted ones that the other cluster does not know of yet among them"),
	limitSetting(SettingLimitSecrets, 20_000, "how many secrets there may be, each of at most 64 KiB"),
}

func limitSetting(name string, standard uint64, help string) Setting {
	o := numberSetting(name, standard, 1, 1_000_000, help)
	o.Scope = ScopeClusterManage
	return o
}

// bound refuses one more where there are as many as a setting allows.
func (t *Tx) bound(option string, have uint64, what string) error {
	most, err := t.number(option)
	if err == nil && have >= most {
		err = refuse(Full, "there are %d %s, and the setting %s allows no more", have, what, option)
	}
	return err
}

func (t *Tx) boundAPITokens() error {
	var n uint64
	if _, err := t.get("SELECT count(*) FROM api_tokens", nil, &n); err != nil {
		return err
	}
	return t.bound(SettingLimitAPITokens, n, "API tokens")
}

func (t *Tx) boundAPIKeys(owner string) error {
	var n uint64
	if _, err := t.get("SELECT count(*) FROM api_keys WHERE owner_id = ?", []any{owner}, &n); err != nil {
		return err
	}
	return t.bound(SettingLimitAPIKeys, n, "API keys and enrollment tokens of this credential")
}

func (t *Tx) boundJoinTokens(owner string) error {
	var n uint64
	if _, err := t.get("SELECT count(*) FROM join_tokens WHERE created_by = ?", []any{owner}, &n); err != nil {
		return err
	}
	return t.bound(SettingLimitJoinTokens, n, "join tokens of this credential")
}

func (t *Tx) boundEnrollments() error {
	var n uint64
	if _, err := t.get("SELECT count(*) FROM enrollments", nil, &n); err != nil {
		return err
	}
	return t.bound(SettingLimitEnrollments, n, "enrollments")
}

func (t *Tx) boundLeases(nodeID uint64) error {
	var n uint64
	if _, err := t.get("SELECT count(*) FROM leases WHERE raft_node_id = ?", []any{int64(nodeID)}, &n); err != nil {
		return err
	}
	return t.bound(SettingLimitLeases, n, "leases on this member")
}

func (t *Tx) boundCertificates(nodeID uint64) error {
	var n uint64
	if _, err := t.get("SELECT count(*) FROM certificates WHERE raft_node_id = ?", []any{int64(nodeID)}, &n); err != nil {
		return err
	}
	return t.bound(SettingLimitCertificates, n, "certificates of this member")
}

func (t *Tx) boundSecrets() error {
	var n uint64
	if _, err := t.get("SELECT count(*) FROM secrets", nil, &n); err != nil {
		return err
	}
	return t.bound(SettingLimitSecrets, n, "secrets")
}

func (t *Tx) boundPeerings() error {
	var n uint64
	if _, err := t.get("SELECT (SELECT count(*) FROM peerings) + (SELECT count(*) FROM peering_tombstones)", nil, &n); err != nil {
		return err
	}
	return t.bound(SettingLimitPeerings, n, "peerings")
}

// boundAnswers makes room for one more remembered answer of the actor, or refuses it. Callers' keys are promised a day;
// those of members make room for each other, looked at now and then: counting costs.
func (t *Tx) boundAnswers() error {
	if t.actor.Auto() {
		if t.Rev%64 != 0 {
			return nil
		}
		var oldest string // that stays
		many, err := t.get("SELECT key FROM idempotency WHERE accessor = ? AND key >= 'auto-' AND key < 'auto.' ORDER BY key DESC LIMIT 1 OFFSET ?",
			[]any{t.actor.Accessor, autoAnswers}, &oldest)
		if err != nil || !many {
			return err
		}
		return t.exec("DELETE FROM idempotency WHERE accessor = ? AND key >= 'auto-' AND key < ?", t.actor.Accessor, oldest)
	}
	var n uint64
	if _, err := t.get("SELECT count(*) FROM idempotency WHERE accessor = ? AND (key < 'auto-' OR key >= 'auto.')", []any{t.actor.Accessor}, &n); err != nil {
		return err
	}
	return t.bound(SettingLimitAnswers, n, "answers remembered for the Idempotency-Keys of this credential")
}
