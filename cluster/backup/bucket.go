package backup

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"muster/internal/addr"
	"muster/store"
)

// access is the access to a bucket. The leader sends it to the writing member over the connection between members; it
// is never logged or stored.
type access struct {
	store.S3Settings
	AccessKey string `json:",omitempty"` // empty: the member's own credentials
	SecretKey string `json:",omitempty"`
}

// openTarget opens the target of an order. Its operations end with ctx.
func (m *Maker) openTarget(ctx context.Context, o order) (target, error) {
	tag := strconv.FormatUint(m.self, 10)
	if !store.InBucket(o.Target) {
		return openDirectory(o.Target, tag)
	}
	if o.S3 == nil {
		a, err := m.access(ctx)
		if err != nil {
			return nil, err
		}
		o.S3 = a
	}
	return openBucket(ctx, o.Target, tag, *o.S3, m.Loopback)
}

// access reads the access to a bucket. Only the leader can open a stored secret.
func (m *Maker) access(ctx context.Context) (*access, error) {
	o, err := m.Store.Backups.Settings(ctx, store.Stale)
	if err != nil {
		return nil, err
	}
	return m.accessBy(ctx, o)
}

func (m *Maker) accessBy(ctx context.Context, o store.BackupSettings) (*access, error) {
	a := &access{S3Settings: o.S3}
	if a.Credentials == "" {
		return a, nil
	}
	secret, err := m.Store.Secrets.Get(ctx, store.AsLeader, a.Credentials)
	if err != nil {
		return nil, errors.New("the credentials cannot be read: " + err.Error())
	}
	if secret == nil {
		return nil, errors.New("the secret that " + store.SettingBackupS3Credentials + " names does not exist")
	}
	var both bool
	a.AccessKey, a.SecretKey, both = strings.Cut(strings.TrimSpace(string(secret.Value)), ":")
	if !both || a.AccessKey == "" {
		return nil, errors.New("the secret that " + store.SettingBackupS3Credentials + " names is not ACCESS-KEY:SECRET-KEY")
	}
	return a, nil
}

const (
	// partBytes is the size of a part in memory and in one request.
	partBytes = 8 << 20
	s3Tries   = 3
	s3Within  = 20 * time.Second // for a connection, and for the headers of an answer
	leaveS3   = 4 * time.Second  // for deletions at the end; an abandoned job must end before another one begins
	maxCA     = 1 << 20
)

// bucket is a target that speaks S3. Its operations end with ctx.
type bucket struct {
	ctx          context.Context
	client       *minio.Client
	name, prefix string
	tag          string // the member's
	close        func()
}

// openBucket opens s3://BUCKET/PREFIX. It sends no request yet.
func openBucket(ctx context.Context, where, tag string, a access, loopback bool) (*bucket, error) {
	u, err := url.Parse(a.Endpoint)
	if err != nil {
		return nil, errors.New("the endpoint is not a URL")
	}
	t, err := a.transport(u.Scheme == "https", loopback)
	if err != nil {
		return nil, err
	}
	lookup := minio.BucketLookupAuto
	switch a.PathStyle {
	case store.PathStyleAlways:
		lookup = minio.BucketLookupPath
	case store.PathStyleNever:
		lookup = minio.BucketLookupDNS
	}
	client, err := minio.New(u.Host, &minio.Options{
		Creds:        a.credentials(),
		Secure:       u.Scheme == "https",
		Region:       a.Region,
		Transport:    t,
		BucketLookup: lookup,
		MaxRetries:   s3Tries,
	})
	if err != nil {
		return nil, errors.New("the endpoint cannot be used")
	}
	name, prefix := store.Bucket(where)
	return &bucket{ctx, client, name, prefix, tag, t.CloseIdleConnections}, nil
}

// credentials returns those of the order, or else of the environment, or else of the file of Amazon's tools. It never
// asks a metadata service.
func (a access) credentials() *credentials.Credentials {
	if a.AccessKey != "" {
		return credentials.NewStaticV4(a.AccessKey, a.SecretKey, "")
	}
	return credentials.NewChainCredentials([]credentials.Provider{
		&credentials.EnvAWS{}, &credentials.FileAWSCredentials{},
	})
}

// transport connects only to the networks of the setting, even when a name resolves elsewhere. It ignores proxies of
// the environment: one would resolve the name itself and connect elsewhere.
func (a access) transport(secure, loopback bool) (*http.Transport, error) {
	policy, err := addr.ParseDialPolicy(a.Networks)
	if err != nil {
		return nil, err
	}
	policy.Loopback = loopback
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil
	t.DialContext = (&net.Dialer{Timeout: s3Within, KeepAlive: 30 * time.Second, Control: policy.Control}).DialContext
	t.ResponseHeaderTimeout = s3Within
	t.MaxIdleConnsPerHost = 2
	if !secure {
		return t, nil
	}
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if a.CA != "" {
		if t.TLSClientConfig.RootCAs, err = authorities(a.CA); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func authorities(path string) (*x509.CertPool, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errors.New("the file of " + store.SettingBackupS3CA + " cannot be read")
	}
	defer f.Close()
	pem, err := io.ReadAll(io.LimitReader(f, maxCA))
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("the file of " + store.SettingBackupS3CA + " has no certificates")
	}
	return pool, nil
}

func (b *bucket) key(name string) string { return b.prefix + name }

// check writes an object and deletes it again. A failure to delete it is no error, because muster then deletes nothing
// there.
func (b *bucket) check() error {
	const text = "muster"
	key := b.key(strings.Replace(partial, "*", b.tag, 1))
	if _, err := b.client.PutObject(b.ctx, b.name, key, strings.NewReader(text), int64(len(text)),
		minio.PutObjectOptions{}); err != nil {
		return said(err)
	}
	_ = b.client.RemoveObject(b.ctx, b.name, key, minio.RemoveObjectOptions{})
	b.sweep()
	return nil
}

// sweep deletes parts of old uploads that a killed process of any member has left.
func (b *bucket) sweep() {
	for left := range b.client.ListIncompleteUploads(b.ctx, b.name, b.prefix+"muster-", true) {
		if left.Err != nil {
			return
		}
		if time.Since(left.Initiated) > 2*makeWithin && validName(strings.TrimPrefix(left.Key, b.prefix)) {
			_ = b.client.RemoveIncompleteUpload(b.ctx, b.name, left.Key)
		}
	}
}

// Create begins an object. It has its name from the moment it is complete, and is deleted when it is discarded: a
// bucket has no temporary names.
func (b *bucket) Create(name string) (file, error) {
	ctx, stop := context.WithCancel(b.ctx)
	r, w := io.Pipe()
	o := &object{
		in:   b,
		key:  b.key(name),
		w:    w,
		stop: stop,
		sent: make(chan struct{}),
	}
	go func() {
		defer close(o.sent)
		_, o.err = b.client.PutObject(ctx, b.name, o.key, r, -1, minio.PutObjectOptions{PartSize: partBytes, NumThreads: 1,
			ContentType: "application/octet-stream"})
		o.err = said(o.err)
		_ = r.CloseWithError(o.err)
	}()
	return o, nil
}

func (b *bucket) Open(name string) (io.ReadCloser, int64, error) {
	o, err := b.client.GetObject(b.ctx, b.name, b.key(name), minio.GetObjectOptions{})
	if err != nil {
		return nil, 0, said(err)
	}
	info, err := o.Stat()
	if err != nil {
		o.Close()
		return nil, 0, said(err)
	}
	return objectReader{o}, info.Size, nil
}

// Remove deletes an object, and what a killed process has uploaded of it.
func (b *bucket) Remove(name string) error {
	b.endUploads(name)
	return said(b.client.RemoveObject(b.ctx, b.name, b.key(name), minio.RemoveObjectOptions{}))
}

// endUploads ends uploads of an object that no process completes any more. An error is none of the caller's: sweep
// tries again, and without the right to list uploads nobody can.
func (b *bucket) endUploads(name string) {
	_ = b.client.RemoveIncompleteUpload(b.ctx, b.name, b.key(name))
}

func (b *bucket) Close() error {
	b.close()
	return nil
}

// object is an object that is being written.
type object struct {
	in        *bucket
	key       string
	w         *io.PipeWriter
	r         *minio.Object // for reading it back
	stop      context.CancelFunc
	sent      chan struct{} // closed when the upload is over
	err       error         // of the upload, valid after that
	committed bool
}

func (o *object) Write(p []byte) (int, error) { return o.w.Write(p) }

// Reread completes the upload and reads the object from the bucket.
func (o *object) Reread() (io.Reader, error) {
	_ = o.w.Close()
	if <-o.sent; o.err != nil {
		return nil, o.err
	}
	r, err := o.in.client.GetObject(o.in.ctx, o.in.name, o.key, minio.GetObjectOptions{})
	if err != nil {
		return nil, said(err)
	}
	o.r = r
	return objectReader{r}, nil
}

// Commit ends the uploads of members that were given up before this one: all of them have one name.
func (o *object) Commit() error {
	o.committed = true
	o.in.endUploads(strings.TrimPrefix(o.key, o.in.prefix))
	return nil
}

func (o *object) Discard() {
	_ = o.w.CloseWithError(context.Canceled)
	o.stop()
	if o.r != nil {
		_ = o.r.Close()
	}
	if <-o.sent; o.committed {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(o.in.ctx), leaveS3)
	defer cancel()
	if o.err != nil {
		_ = o.in.client.RemoveIncompleteUpload(ctx, o.in.name, o.key)
		return
	}
	_ = o.in.client.RemoveObject(ctx, o.in.name, o.key, minio.RemoveObjectOptions{})
}

// objectReader words the errors of reads.
type objectReader struct{ *minio.Object }

func (r objectReader) Read(p []byte) (int, error) {
	n, err := r.Object.Read(p)
	if err != nil && err != io.EOF {
		err = said(err)
	}
	return n, err
}

// codes are clauses for the S3 errors that an operator can correct.
var codes = map[string]string{
	"NoSuchBucket":                 "there is no such bucket",
	"NoSuchKey":                    errNoFile.Error(),
	"AccessDenied":                 "muster may not write to it, or not read what it wrote",
	"AllAccessDisabled":            "muster may not write to it, or not read what it wrote",
	"MethodNotAllowed":             "it is read-only",
	"InvalidAccessKeyId":           "it does not know the access key",
	"SignatureDoesNotMatch":        "the secret key is not that of the access key",
	"RequestTimeTooSkewed":         "the clock of this machine is not that of the endpoint",
	"AuthorizationHeaderMalformed": "it is in another region than " + store.SettingBackupS3Region + " says",
	"PermanentRedirect":            "it is in another region than " + store.SettingBackupS3Region + " says",
	"QuotaExceeded":                "the quota on it is used up",
	"XMinioStorageFull":            "there is no room left on it",
	"SlowDown":                     "it asks to be left alone for a while",
}

// said returns in a clause what went wrong at a bucket; nil for nil. It does not repeat the text of a server except its
// code.
func said(err error) error {
	var answer minio.ErrorResponse
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	var op *net.OpError
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &answer) && answer.Code != "":
		text, known := codes[answer.Code]
		switch {
		case answer.Code == "NoSuchKey":
			return errNoFile
		case known:
			return errors.New(text)
		case answer.StatusCode == http.StatusInsufficientStorage:
			return errors.New("there is no room left on it")
		}
		return fmt.Errorf("it answers %s", code(strings.TrimPrefix(answer.Code, strconv.Itoa(answer.StatusCode)+" ")))
	case errors.As(err, &unknown), errors.As(err, &invalid), errors.As(err, &host):
		return errors.New("its certificate is not trusted: see " + store.SettingBackupS3CA)
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("it does not answer")
	case errors.As(err, &op):
		return fmt.Errorf("it cannot be reached: %w", op.Err)
	}
	var request *url.Error // with the whole address in its text
	if errors.As(err, &request) {
		err = request.Err
	}
	return fmt.Errorf("it cannot be used: %s", code(err.Error()))
}

// code returns a server's code, truncated and reduced to harmless characters.
func code(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	return s[:min(len(s), 80)]
}
