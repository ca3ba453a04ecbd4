package listeners

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestHTTPResponse has the literal responses.
func TestHTTPResponse(t *testing.T) {
	const text = "Content-Type: text/plain; charset=utf-8\r\n"
	for _, tt := range []struct {
		name  string
		spec  *HTTP
		input string
		want  string
	}{
		{"default", &HTTP{}, httpGet, "HTTP/1.1 200 OK\r\n" + httpDated + "Content-Length: 0\r\n\r\n"},
		{"body", &HTTP{Body: []byte("hé\n")}, httpGet, "HTTP/1.1 200 OK\r\n" + httpDated + "Content-Length: 4\r\n" + text + "\r\nhé\n"},
		{"bytes", &HTTP{Body: []byte("\xff")}, httpGet, "HTTP/1.1 200 OK\r\n" + httpDated + "Content-Length: 1\r\n\r\n\xff"},
		{
			"headers",
			&HTTP{503, map[string]string{"Retry-After": "5", "content-type": "text/html", "X": ""}, []byte("x")},
			httpGet,
			"HTTP/1.1 503 Service Unavailable\r\n" + httpDated + "Content-Length: 1\r\nRetry-After: 5\r\nX: \r\ncontent-type: text/html\r\n\r\nx",
		},
		{"unknown status", &HTTP{Status: 299}, httpGet, "HTTP/1.1 299 \r\n" + httpDated + "Content-Length: 0\r\n\r\n"},
		{"204", &HTTP{Status: 204, Body: []byte("x")}, httpGet, "HTTP/1.1 204 No Content\r\n" + httpDated + "\r\n"},
		{"205", &HTTP{Status: 205, Body: []byte("x")}, httpGet, "HTTP/1.1 205 Reset Content\r\n" + httpDated + "Content-Length: 0\r\n\r\n"},
		{"304", &HTTP{Status: 304, Body: []byte("x")}, httpGet, "HTTP/1.1 304 Not Modified\r\n" + httpDated + "\r\n"},
		{
			"head", &HTTP{Body: []byte("x")},
			"HEAD / HTTP/1.1\r\nHost: h\r\n\r\nHEAD / HTTP/1.1\r\nHost\r\n\r\n",
			"HTTP/1.1 200 OK\r\n" + httpDated + "Content-Length: 1\r\n" + text + "\r\n" +
				"HTTP/1.1 400 Bad Request\r\n" + httpDated + text + "Content-Length: 35\r\nConnection: close\r\n\r\n",
		},
		{
			"close", &HTTP{Body: []byte("x")}, "GET / HTTP/1.0\r\n\r\n",
			"HTTP/1.1 200 OK\r\n" + httpDated + "Content-Length: 1\r\n" + text + "Connection: close\r\n\r\nx",
		},
		{
			"keep-alive", &HTTP{Body: []byte("x")}, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
			"HTTP/1.1 200 OK\r\n" + httpDated + "Content-Length: 1\r\n" + text + "Connection: keep-alive\r\n\r\nx",
		},
		{
			"refusal", &HTTP{Headers: map[string]string{"X": "y"}}, "GET / HTTP/1.1\r\n\r\n",
			"HTTP/1.1 400 Bad Request\r\n" + httpDated + text + "Content-Length: 28\r\nConnection: close\r\n\r\nBad Request: no Host header\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, _ := httpServe(t, tt.spec, []byte(tt.input)); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// TestHTTPRefusals holds refusals to the room that is kept for them.
func TestHTTPRefusals(t *testing.T) {
	h := (&HTTP{}).New().(*httpHandler)
	for _, r := range []*httpRefusal{httpBadCoding, httpOtherCoding, httpOtherVersion, httpTwoFramings, httpBadExpect, httpHeadTooLarge} {
		if out := h.appendRefusal(nil, r, false); len(out) > httpRefusalMost {
			t.Errorf("%d bytes: %s", len(out), out)
		}
	}
}

func TestHTTPDate(t *testing.T) {
	s := newHTTPStream(t, &HTTP{})
	for i := range 3 {
		s.sent, s.now = nil, httpEpoch.Add(time.Duration(i)*700*time.Millisecond)
		s.feed([]byte(httpGet))
		if want := s.now.Format(http.TimeFormat); !strings.Contains(string(s.sent), "\r\nDate: "+want+"\r\n") {
			t.Errorf("at %s: %s", want, s.sent)
		}
	}
}

func TestHTTPValidate(t *testing.T) {
	for _, tt := range []struct {
		spec *HTTP
		want []string
	}{
		{&HTTP{}, nil},
		{&HTTP{200, map[string]string{"Server": "x", "Set-Cookie": "a=b; c", "X-Empty": "", "X": "a\tb\xff"}, []byte("x")}, nil},
		{&HTTP{Status: 599}, nil},
		{&HTTP{Status: 199}, []string{"status"}},
		{&HTTP{Status: 600}, []string{"status"}},
		{&HTTP{Status: -1}, []string{"status"}},
		{&HTTP{Headers: map[string]string{"CONNECTION": "close"}}, []string{"headers[CONNECTION]"}},
		{&HTTP{Status: 101, Headers: map[string]string{"date": "", "Content-Length": "1", "Transfer-Encoding": "chunked"}}, []string{"status", "headers[Content-Length]", "headers[Transfer-Encoding]", "headers[date]"}},
		{&HTTP{Headers: map[string]string{"": "x"}}, []string{"headers"}},
		{&HTTP{Headers: map[string]string{"a b": "x"}}, []string{"headers"}},
		{&HTTP{Headers: map[string]string{"a:": "x"}}, []string{"headers"}},
		{&HTTP{Headers: map[string]string{"a\r\nb": "x"}}, []string{"headers"}},
		{&HTTP{Headers: map[string]string{"X": "a\r\nY: b"}}, []string{"headers[X]"}},
		{&HTTP{Headers: map[string]string{"X": "a\x00"}}, []string{"headers[X]"}},
		{&HTTP{Headers: map[string]string{"X": "1", "x": "2"}}, []string{"headers[x]"}},
		{&HTTP{Headers: map[string]string{"X": strings.Repeat("x", httpMaxHeaders)}}, []string{"headers"}},
	} {
		var got []string
		for _, v := range Violations(tt.spec.Validate()) {
			got = append(got, strings.TrimPrefix(v.Field, "spec.handler.http."))
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%.60q: got %q, want %q", fmt.Sprint(tt.spec), got, tt.want)
		}
	}
}

func TestHTTPSaved(t *testing.T) {
	want := &HTTP{201, map[string]string{"X": "y"}, []byte("\x00\xff")}
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got := &HTTP{}
	if err := json.Unmarshal(data, got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %v, %v", data, got, err)
	}
}
