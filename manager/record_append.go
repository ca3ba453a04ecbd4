package manager

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// appendJSON appends what json.Marshal makes of a record.
func (r *Record) appendJSON(b []byte) (_ []byte, err error) {
	text := func(name, value string) {
		b = listeners.AppendText(append(append(append(b, ',', '"'), name...), '"', ':'), value)
	}
	b = listeners.AppendText(append(b, `{"name":`...), r.Name)
	text("uid", r.UID)
	for _, part := range []struct {
		name  string
		texts map[string]string
	}{{"labels", r.Labels}, {"annotations", r.Annotations}} {
		if len(part.texts) == 0 {
			continue
		}
		value, err := json.Marshal(part.texts)
		if err != nil {
			return nil, err
		}
		b = append(append(append(append(b, ',', '"'), part.name...), '"', ':'), value...)
	}
	if r.Owner != "" {
		text("owner", r.Owner)
	}
	if b, err = r.Spec.AppendJSON(append(b, `,"spec":`...)); err != nil {
		return nil, err
	}
	if r.Desired != "" {
		text("desired", string(r.Desired))
	}
	if !r.ResumeAt.IsZero() {
		if b, err = appendTime(append(b, `,"resume_at":`...), r.ResumeAt); err != nil {
			return nil, err
		}
	}
	b = strconv.AppendInt(append(b, `,"generation":`...), r.Generation, 10)
	b = strconv.AppendInt(append(b, `,"revision":`...), r.Revision, 10)
	if b, err = appendTime(append(b, `,"created":`...), r.Created); err != nil {
		return nil, err
	}
	if b, err = appendTime(append(b, `,"updated":`...), r.Updated); err != nil {
		return nil, err
	}
	return append(b, '}'), nil
}

func appendTime(b []byte, t time.Time) ([]byte, error) {
	b, err := t.AppendText(append(b, '"'))
	return append(b, '"'), err
}
