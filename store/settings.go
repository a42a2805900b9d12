package store

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"muster/internal/addr"
	"muster/internal/naming"
)

// SettingAutopilot is the configuration of autopilot, a JSON document that package cluster defines.
const SettingAutopilot = "autopilot"

// settingKeyRotation is the maximum age of a data-encryption key, a JSON string with a Go duration; "0s": no limit.
const settingKeyRotation = "key_rotation"

// DEKMaxAge returns the age at which the data-encryption key is replaced; 0: never.
func (st Settings) DEKMaxAge(ctx context.Context, c Consistency) (time.Duration, error) {
	set, err := st.Get(ctx, c, settingKeyRotation)
	if err != nil || set.Value == nil {
		return 0, err
	}
	var text string
	if err := json.Unmarshal(set.Value, &text); err != nil {
		return 0, err
	}
	return time.ParseDuration(text)
}

// SetDEKMaxAge sets the age at which the data-encryption key is replaced; 0: never.
func (st Settings) SetDEKMaxAge(ctx context.Context, actor Actor, age time.Duration) error {
	text, err := json.Marshal(age.String())
	if err != nil {
		return err
	}
	_, err = st.Put(ctx, actor, settingKeyRotation, text, nil)
	return err
}

// Document is a named JSON document with the revision that last changed it.
type Document struct {
	Value       json.RawMessage
	ModifiedRev uint64
}

// Get returns a setting; its value is nil when it was never set.
func (st Settings) Get(ctx context.Context, c Consistency, name string) (Document, error) {
	return recall(ctx, st.s, c, "setting/"+name, []string{"settings"},
		func(v *View) (Document, error) { return v.document(name) })
}

func (v *View) document(name string) (out Document, err error) {
	var text string
	ok, err := v.get("SELECT value, modified_rev FROM settings WHERE name = ?", []any{name}, &text, &out.ModifiedRev)
	if ok {
		out.Value = json.RawMessage(text)
	}
	return out, err
}

// Put replaces a setting. With cas it does so only if the setting was last changed at that revision, and reports
// whether it did.
func (st Settings) Put(ctx context.Context, actor Actor, name string, value json.RawMessage,
	cas *uint64) (bool, error) {
	return makeOnce(ctx, st.s, actor, func(tx *Tx) (bool, error) {
		old, err := tx.document(name)
		if err != nil {
			return false, err
		}
		if cas != nil && *cas != old.ModifiedRev {
			return false, nil
		}
		if string(old.Value) == string(value) {
			return true, nil
		}
		if err := tx.exec(putSetting, name, string(value), tx.Rev); err != nil {
			return false, err
		}
		return true, tx.audit("setting.put", "setting/"+name, string(value))
	})
}

const putSetting = `INSERT INTO settings (name, value, modified_rev) VALUES (?, ?, ?)
	ON CONFLICT (name) DO UPDATE SET value = excluded.value, modified_rev = excluded.modified_rev`

// Setting is a setting that operators read and change by name. Its value is one JSON value.
type Setting struct {
	Name    string
	Default string // JSON
	Rule    string // what a value must be; it completes "NAME must be …"
	Help    string // one line: what it controls
	Scope   string // that may change it besides ScopeManagement; empty where it weakens the audit or admits others

	admits bool // it says who or what is let in
	valid  func(json.RawMessage) bool
}

// admitting marks settings that say who or what is let in.
func admitting(list ...Setting) []Setting {
	for i := range list {
		list[i].admits = true
	}
	return list
}

// Names of settings.
const (
	SettingEnrollment         = "enrollment.enabled"
	SettingEnrollmentHTTPCA   = "enrollment.http_ca"
	SettingEnrollmentKeyType  = "enrollment.key_type"
	SettingEnrollmentLifetime = "enrollment.lifetime"
	SettingAuditMaxAge        = "audit.max_age"
	SettingAuditMaxRows       = "audit.max_rows"
	SettingCertificateHosts   = "certificates.hosts"
	SettingPeeringNetworks    = "peering.networks"
	SettingRefusalsAge        = "refusals.max_age"
	SettingRefusalsRows       = "refusals.max_rows"
)

// Values of settings.
const (
	HTTPCARoot         = "root"
	HTTPCAIntermediate = "intermediate"
	KeyTypeECDSA       = "ecdsa"
	KeyTypeRSA         = "rsa4096"
)

// AllSettings lists every setting that operators change, by name.
var AllSettings = slices.SortedFunc(slices.Values(slices.Concat([]Setting{
	durationSetting(SettingAuditMaxAge, 90*24*time.Hour, time.Hour, 100*366*24*time.Hour, "how long audit rows are kept"),
	numberSetting(SettingAuditMaxRows, 200_000, 1000, 1_000_000,
		"how many audit rows are kept; each costs about 0.2 kB of memory on every member"),
	durationSetting(SettingRefusalsAge, 30*24*time.Hour, time.Hour, 100*366*24*time.Hour,
		"how long audit rows of refused attempts, repeated answers and other clusters are kept"),
	numberSetting(SettingRefusalsRows, 20_000, 1000, 1_000_000,
		"how many audit rows of refused attempts, repeated answers and other clusters are kept, in addition"),
	choiceSetting(SettingEnrollmentHTTPCA,
		"which CA an enrolling node signs its HTTP certificates with: the cluster's HTTP authority, or an "+
			"intermediate CA of its own",
		HTTPCARoot, HTTPCAIntermediate),
	choiceSetting(SettingEnrollmentKeyType, "the kind of keys generated for enrolling nodes", KeyTypeECDSA,
		KeyTypeRSA),
	durationSetting(SettingEnrollmentLifetime, 365*24*time.Hour, time.Hour, 9*365*24*time.Hour,
		"how long the certificates of an enrolling node are valid"),
}, admitting(
	flagSetting(SettingEnrollment, true, "whether other software can enroll"),
	hostsSetting(SettingCertificateHosts,
		"hosts allowed in certificates of members and of enrolled nodes, besides proven ones"),
	networksSetting(SettingPeeringNetworks, "networks in which other clusters may be dialled"),
), limitSettings, backupSettings, workloadSettings, admitting(loginSettings...))), func(a, b Setting) int {
	return strings.Compare(a.Name, b.Name)
})

func flagSetting(name string, standard bool, help string) Setting {
	return Setting{
		Name:    name,
		Default: fmt.Sprint(standard),
		Rule:    "true or false",
		Help:    help,
		valid:   func(v json.RawMessage) bool { return string(v) == "true" || string(v) == "false" },
	}
}

// choiceSetting returns a setting with a fixed set of values; the first is the default.
func choiceSetting(name, help string, choices ...string) Setting {
	return Setting{
		Name:    name,
		Default: quote(choices[0]),
		Rule:    "one of " + strings.Join(choices, ", "),
		Help:    help,
		valid: func(v json.RawMessage) bool {
			var s string
			return json.Unmarshal(v, &s) == nil && slices.Contains(choices, s)
		},
	}
}

// durationSetting returns a setting that is a Go duration string within bounds.
func durationSetting(name string, standard, least, most time.Duration, help string) Setting {
	return Setting{
		Name:    name,
		Default: quote(standard.String()),
		Rule:    fmt.Sprintf("a duration between %q and %q", least, most),
		Help:    help,
		valid: func(v json.RawMessage) bool {
			var s string
			if json.Unmarshal(v, &s) != nil {
				return false
			}
			d, err := time.ParseDuration(s)
			return err == nil && d >= least && d <= most
		},
	}
}

// numberSetting returns a setting that is an integer within bounds.
func numberSetting(name string, standard, least, most uint64, help string) Setting {
	return Setting{
		Name:    name,
		Default: fmt.Sprint(standard),
		Rule: fmt.Sprintf("a whole number between %d and %d", least,
			most),
		Help: help,
		valid: func(v json.RawMessage) bool {
			var n uint64
			return json.Unmarshal(v, &n) == nil && n >= least && n <= most
		},
	}
}

func quote(s string) string {
	b, _ := json.Marshal(s) // cannot fail for a string
	return string(b)
}

func findSetting(name string) (*Setting, error) {
	for i := range AllSettings {
		if AllSettings[i].Name == name {
			return &AllSettings[i], nil
		}
	}
	var names []string
	for _, o := range AllSettings {
		names = append(names, o.Name)
	}
	return nil, refuse(Invalid, "%.80s is not a setting; %s", name, naming.Suggest(name, names))
}

// settings returns the values of all settings; a setting that was never set has its default.
func (v *View) settings() (map[string]json.RawMessage, error) {
	all := make(map[string]json.RawMessage, len(AllSettings))
	for _, o := range AllSettings {
		set, err := v.document(o.Name)
		if err != nil {
			return nil, err
		}
		all[o.Name] = json.RawMessage(o.Default)
		if set.Value != nil && o.valid(set.Value) { // a newer member may have set a value that this one does not know
			all[o.Name] = set.Value
		}
	}
	return all, nil
}

// Values returns the value of every setting by its name. Callers must not modify the map.
func (st Settings) Values(ctx context.Context, c Consistency) (map[string]json.RawMessage, error) {
	return recall(ctx, st.s, c, "settings", []string{"settings"}, (*View).settings)
}

// number returns a setting that is a number.
func (v *View) number(name string) (n uint64, err error) {
	o, err := findSetting(name)
	if err != nil {
		return 0, err
	}
	set, err := v.document(name)
	if err != nil {
		return 0, err
	}
	value := json.RawMessage(o.Default)
	if set.Value != nil && o.valid(set.Value) {
		value = set.Value
	}
	return n, json.Unmarshal(value, &n)
}

// SettingScope returns the scope that may change a setting.
func SettingScope(name string) (string, error) {
	o, err := findSetting(name)
	if err != nil {
		return "", err
	}
	if o.Scope == "" {
		return ScopeManagement, nil
	}
	return o.Scope, nil
}

// Set changes the given settings, all or none; null means the default. It returns the values of all settings.
func (st Settings) Set(ctx context.Context, actor Actor,
	values map[string]json.RawMessage) (map[string]json.RawMessage, error) {
	for name, value := range values {
		o, err := findSetting(name)
		if err != nil {
			return nil, err
		}
		if string(value) != "null" && !o.valid(value) {
			return nil, refuse(Invalid, "%s must be %s", name, o.Rule)
		}
	}
	return makeOnce(ctx, st.s, actor, func(tx *Tx) (map[string]json.RawMessage, error) {
		for _, name := range slices.Sorted(maps.Keys(values)) {
			old, err := tx.document(name)
			if err != nil {
				return nil, err
			}
			value := string(values[name])
			switch {
			case value == string(old.Value), value == "null" && old.Value == nil:
				continue
			case value == "null":
				err = tx.exec("DELETE FROM settings WHERE name = ?", name)
			default:
				err = tx.exec(putSetting, name, value, tx.Rev)
			}
			if err != nil {
				return nil, err
			}
			if err := tx.audit("setting.put", "setting/"+name, value); err != nil {
				return nil, err
			}
		}
		return tx.settings()
	})
}

// EnrollmentSettings are the values of the settings enrollment.*.
type EnrollmentSettings struct {
	Enabled  bool
	HTTPCA   string // HTTPCARoot or HTTPCAIntermediate
	KeyType  string // KeyTypeECDSA or KeyTypeRSA
	Lifetime time.Duration
}

// Enrollment returns the settings of enrollment.
func (st Settings) Enrollment(ctx context.Context, c Consistency) (o EnrollmentSettings, err error) {
	var lifetime string
	if err := st.values(ctx, c, map[string]any{SettingEnrollment: &o.Enabled, SettingEnrollmentHTTPCA: &o.HTTPCA,
		SettingEnrollmentKeyType:  &o.KeyType,
		SettingEnrollmentLifetime: &lifetime}); err != nil {
		return o, err
	}
	o.Lifetime, err = time.ParseDuration(lifetime)
	return o, err
}

// AuditRetention limits the audit table; the whole database is in every member's memory. Rows caused by strangers and
// other clusters are counted separately, so that they never displace rows of operators and members.
type AuditRetention struct {
	MaxAge, OthersAge   time.Duration
	MaxRows, OthersRows uint64
}

// AuditRetention returns how long audit rows are kept.
func (st Settings) AuditRetention(ctx context.Context, c Consistency) (r AuditRetention, err error) {
	var age, others string
	if err := st.values(ctx, c, map[string]any{SettingAuditMaxAge: &age, SettingAuditMaxRows: &r.MaxRows,
		SettingRefusalsAge:  &others,
		SettingRefusalsRows: &r.OthersRows}); err != nil {
		return r, err
	}
	if r.MaxAge, err = time.ParseDuration(age); err != nil {
		return r, err
	}
	r.OthersAge, err = time.ParseDuration(others)
	return r, err
}

// PeeringNetworks returns the policy for dialling other clusters; the caller sets Loopback.
func (st Settings) PeeringNetworks(ctx context.Context, c Consistency) (addr.DialPolicy, error) {
	var text string
	if err := st.values(ctx, c, map[string]any{SettingPeeringNetworks: &text}); err != nil {
		return addr.DialPolicy{}, err
	}
	return addr.ParseDialPolicy(text)
}

// values reads several settings.
func (st Settings) values(ctx context.Context, c Consistency, into map[string]any) error {
	all, err := recall(ctx, st.s, c, "settings", []string{"settings"}, (*View).settings)
	if err != nil {
		return err
	}
	for name, v := range into {
		if err := json.Unmarshal(all[name], v); err != nil {
			return err
		}
	}
	return nil
}
