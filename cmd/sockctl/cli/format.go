package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// none stands in a cell that has nothing to say.
const none = "-"

// age returns the time since ts in one unit: 3s, 5m, 2h, 4d.
func (a *app) age(ts *timestamppb.Timestamp) string {
	if ts == nil {
		return none
	}
	d := max(a.env.Now().Sub(ts.AsTime()), 0) // clocks differ
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}

// when returns a time and how long ago it was.
func (a *app) when(ts *timestamppb.Timestamp) string {
	if ts == nil {
		return ""
	}
	at := ts.AsTime().UTC().Format(time.RFC3339)
	if ts.AsTime().After(a.env.Now()) {
		return at
	}
	return at + " (" + a.age(ts) + " ago)"
}

// size returns a number of bytes in the largest unit that it fills.
func size(n uint64) string {
	if n < 1024 {
		return strconv.FormatUint(n, 10) + "B"
	}
	f, unit := float64(n), 0
	for f >= 1023.95 && unit < 6 { // 1023.95 would print as 1024.0
		f /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f%ciB", f, "KMGTPE"[unit-1])
}

// timeText returns a short time with three digits that count.
func timeText(d time.Duration) string {
	unit := time.Nanosecond
	for unit*1000 <= d.Abs() {
		unit *= 10
	}
	return d.Round(unit).String()
}

// rate returns bytes per second as networks count, in bits.
func rate(bytes uint64) string {
	f, unit := float64(bytes)*8, 0
	for f >= 999.95 && unit < 5 {
		f /= 1000
		unit++
	}
	if unit == 0 {
		return fmt.Sprintf("%.0fbit/s", f)
	}
	return fmt.Sprintf("%.1f%cbit/s", f, "kMGTP"[unit-1])
}

// valueText returns the value of an option for people.
func valueText(v *structpb.Value) string {
	if v == nil {
		return none
	}
	switch t := optionTree(v).(type) {
	case nil:
		return "null"
	case string:
		if t == "" {
			return `""`
		}
		return t
	default:
		return fmt.Sprint(t)
	}
}

// pairs returns a map as k=v,k=v.
func pairs(m map[string]string) string {
	all := make([]string, 0, len(m))
	for k, v := range m {
		all = append(all, k+"="+v)
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}

// plural returns "1 connection", "2 connections".
func plural(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.FormatUint(n, 10) + " " + noun + "s"
}

// clean makes s safe for a terminal and for one cell of a table: names of
// processes, labels and messages can hold anything.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if !strings.ContainsFunc(s, unprintable) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unprintable(r) {
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }
