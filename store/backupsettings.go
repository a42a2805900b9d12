package store

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"muster/certs"
	"muster/internal/addr"
)

// Settings of backups.
const (
	SettingBackupInterval   = "backup.interval"
	SettingBackupKeep       = "backup.keep"
	SettingBackupKeepFor    = "backup.keep_for"
	SettingBackupRecipients = "backup.recipients"
	SettingBackupDirectory  = "backup.directory"

	SettingBackupS3Endpoint    = "backup.s3_endpoint"
	SettingBackupS3Region      = "backup.s3_region"
	SettingBackupS3PathStyle   = "backup.s3_path_style"
	SettingBackupS3Credentials = "backup.s3_credentials"
	SettingBackupS3CA          = "backup.s3_ca"
	SettingBackupS3Networks    = "backup.s3_networks"
)

// Bounds of the settings of backups.
const (
	minBackupInterval   = time.Minute
	maxBackupInterval   = 31 * 24 * time.Hour
	maxBackupKeep       = 1000
	minBackupKeepFor    = time.Hour
	maxBackupKeepFor    = 100 * 366 * 24 * time.Hour
	maxBackupRecipients = 16
	noBackupRecipients  = "none"
	noBackupDirectory   = "none"
)

var backupSettings = []Setting{
	offSetting(SettingBackupInterval, minBackupInterval, maxBackupInterval,
		"how often a member makes a backup; \"0s\" means never"),
	numberSetting(SettingBackupKeep, 14, 1, maxBackupKeep, "how many good backups are kept"),
	offSetting(SettingBackupKeepFor, minBackupKeepFor, maxBackupKeepFor,
		"how long backups are kept; \"0s\" means until there are too many. The last good one is always kept"),
	{
		Name:    SettingBackupRecipients,
		Default: quote(noBackupRecipients),
		Help: "recipients that backups are encrypted for; one of their identities is needed to found a cluster " +
			"from a backup",
		Rule: fmt.Sprintf("%q or up to %d age X25519 recipients (age1…), separated by commas", noBackupRecipients,
			maxBackupRecipients),
		valid: func(v json.RawMessage) bool {
			var s string
			return json.Unmarshal(v, &s) == nil && validRecipients(s)
		},
	},
	{
		Name:    SettingBackupDirectory,
		Default: quote(noBackupDirectory),
		Help:    "where backups are saved: a directory on each member that has it, or a bucket",
		Rule: fmt.Sprintf("%q, an absolute path, or s3://BUCKET[/PREFIX], of at most %d bytes and without . and .. in it",
			noBackupDirectory, MaxSize("backups", "target")),
		valid: textRule(noBackupDirectory, func(s string) bool { return validDirectory(s) || validBucket(s) }),
	},
	{
		Name:    SettingBackupS3Endpoint,
		Default: quote("https://s3.amazonaws.com"),
		Help:    "where the bucket is",
		Rule:    "https://HOST[:PORT]; http:// on loopback alone",
		valid:   textRule("", func(s string) bool { return validIssuer(s) && !strings.Contains(s[len("https://"):], "/") }),
	},
	{
		Name:    SettingBackupS3Region,
		Default: quote("us-east-1"),
		Help:    "the region that requests to the bucket are signed for",
		Rule:    "1 to 64 letters, digits and -",
		valid:   textRule("", validRegion),
	},
	{
		Name:    SettingBackupS3PathStyle,
		Default: quote(PathStyleAuto),
		Help: "whether the bucket stands in the path; \"auto\" is never at Amazon, Google and Alibaba, and always " +
			"elsewhere",
		Rule:  `"auto", "always" or "never"`,
		valid: textRule(PathStyleAuto, func(s string) bool { return s == PathStyleAlways || s == PathStyleNever }),
	},
	{
		Name:    SettingBackupS3Credentials,
		Default: quote(noBackupDirectory),
		Help:    "which stored secret opens the bucket; \"none\" is what the environment of members says, or their file",
		Rule:    quote(noBackupDirectory) + " or the name of a stored secret, which is ACCESS-KEY:SECRET-KEY",
		valid:   wordRule(nil),
	},
	{
		Name:    SettingBackupS3CA,
		Default: quote(noBackupDirectory),
		Help:    "the file on members with the authorities that the endpoint's certificate is checked against",
		Rule:    quote(noBackupDirectory) + ", which is those of the machine, or an absolute path without . and .. in it",
		valid:   textRule(noBackupDirectory, validDirectory),
	},
	networksSetting(SettingBackupS3Networks, "which networks the bucket may be in"),
}

// Where the name of a bucket stands.
const (
	PathStyleAuto   = "auto"
	PathStyleAlways = "always"
	PathStyleNever  = "never"
)

// textRule accepts a text that is word or for which ok holds.
func textRule(word string, ok func(string) bool) func(json.RawMessage) bool {
	return func(v json.RawMessage) bool {
		var s string
		return json.Unmarshal(v, &s) == nil && s != "" && (s == word || ok(s))
	}
}

// bucketScheme begins the target of a backup that is in a bucket and not on a member.
const bucketScheme = "s3://"

// InBucket reports whether a target is a bucket, which every member reaches.
func InBucket(target string) bool { return strings.HasPrefix(target, bucketScheme) }

// Bucket splits such a target into bucket and prefix, which is empty or ends in /.
func Bucket(target string) (name, prefix string) {
	name, prefix, _ = strings.Cut(strings.TrimPrefix(target, bucketScheme), "/")
	if prefix = strings.TrimSuffix(prefix, "/"); prefix != "" {
		prefix += "/"
	}
	return name, prefix
}

// bucketName is Amazon's rule for names of buckets.
var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

func validBucket(s string) bool {
	rest, ok := strings.CutPrefix(s, bucketScheme)
	name, prefix, some := strings.Cut(rest, "/")
	return ok && bucketName.MatchString(name) && !strings.Contains(name, "..") && (!some || validDirectory("/"+prefix)) &&
		len(s) <= MaxSize("backups", "target")
}

func validRegion(s string) bool {
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
	})
}

// offSetting makes a setting that is a duration within bounds, or "0s" for off, which is the default.
func offSetting(name string, least, most time.Duration, help string) Setting {
	o := durationSetting(name, 0, least, most, help)
	o.Rule = `"0s" or ` + o.Rule
	inner := o.valid
	o.valid = func(v json.RawMessage) bool {
		var s string
		if json.Unmarshal(v, &s) != nil {
			return false
		}
		d, err := time.ParseDuration(s)
		return err == nil && d == 0 || inner(v)
	}
	return o
}

func validRecipients(s string) bool {
	if s == noBackupRecipients {
		return true
	}
	list := splitRecipients(s)
	for i, r := range list {
		if _, err := certs.PublicKey(r); err != nil || slices.Contains(list[:i], r) {
			return false
		}
	}
	return len(list) > 0 && len(list) <= maxBackupRecipients
}

func splitRecipients(s string) (list []string) {
	for r := range strings.SplitSeq(s, ",") {
		list = append(list, strings.TrimSpace(r))
	}
	return list
}

func validDirectory(s string) bool {
	return path.IsAbs(s) && path.Clean(s) == s && s != "/" && len(s) <= MaxSize("backups", "target") &&
		strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) < 0
}

// BackupSettings are the values of the settings backup.*.
type BackupSettings struct {
	Interval   time.Duration // 0: never
	Keep       int           // good ones
	KeepFor    time.Duration // 0: until there are too many
	Recipients []string      // age recipients
	Directory  string        // or s3://BUCKET[/PREFIX]; empty: none is set
	S3         S3Settings
}

// S3Settings say how a bucket is reached.
type S3Settings struct {
	Endpoint    string // URL
	Region      string
	PathStyle   string
	Credentials string // name of a stored secret, or empty
	CA          string // file on members, or empty
	Networks    string // text of an addr.DialPolicy
}

func (v *View) backupSettings() (o BackupSettings, err error) {
	all, err := v.settings()
	if err != nil {
		return o, err
	}
	return readBackupSettings(all)
}

func readBackupSettings(all map[string]json.RawMessage) (o BackupSettings, err error) {
	var interval, keepFor, recipients string
	for name, into := range map[string]any{
		SettingBackupInterval:      &interval,
		SettingBackupKeep:          &o.Keep,
		SettingBackupKeepFor:       &keepFor,
		SettingBackupRecipients:    &recipients,
		SettingBackupDirectory:     &o.Directory,
		SettingBackupS3Endpoint:    &o.S3.Endpoint,
		SettingBackupS3Region:      &o.S3.Region,
		SettingBackupS3PathStyle:   &o.S3.PathStyle,
		SettingBackupS3Credentials: &o.S3.Credentials,
		SettingBackupS3CA:          &o.S3.CA,
		SettingBackupS3Networks:    &o.S3.Networks,
	} {
		if err := json.Unmarshal(all[name], into); err != nil {
			return o, err
		}
	}
	if o.Interval, err = time.ParseDuration(interval); err != nil {
		return o, err
	}
	if recipients != noBackupRecipients {
		o.Recipients = splitRecipients(recipients)
	}
	for _, s := range []*string{&o.Directory, &o.S3.Credentials, &o.S3.CA} {
		if *s == noBackupDirectory {
			*s = ""
		}
	}
	o.KeepFor, err = time.ParseDuration(keepFor)
	return o, err
}

// Settings reads the settings of backups.
func (bk Backups) Settings(ctx context.Context, c Consistency) (o BackupSettings, err error) {
	all, err := bk.s.Settings.Values(ctx, c)
	if err != nil {
		return o, err
	}
	return readBackupSettings(all)
}

// networksSetting returns a setting that is an addr.DialPolicy; the default is all networks.
func networksSetting(name, help string) Setting {
	return Setting{
		Name:    name,
		Default: quote(addr.AnyNetwork),
		Help:    help,
		Rule:    quote(addr.AnyNetwork) + " or up to 64 networks separated by commas, such as \"10.0.0.0/8,2001:db8::/32\"",
		valid: func(v json.RawMessage) bool {
			var s string
			if json.Unmarshal(v, &s) != nil {
				return false
			}
			_, err := addr.ParseDialPolicy(s)
			return err == nil
		},
	}
}
