package cli

import (
	"slices"
	"strings"
)

// nearest returns the name that is meant by one with a slip in it, or nothing.
func nearest(word string, names []string) string {
	best, least := "", max(1, min(len(word), 40)/3)+1
	if len(word) > 40 { // is no slip
		return ""
	}
	fold := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, "_", "")) }
	for _, name := range names {
		if n := distance(fold(word), fold(name)); n < least {
			best, least = name, n
		}
	}
	return best
}

// distance is how many letters to change, add or drop to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0] // above and left
		row[0] = i + 1
		for j := range len(b) {
			change := corner
			if a[i] != b[j] {
				change++
			}
			corner = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// orList returns "a, b or c".
func orList(names []string) string {
	names = slices.Clone(names)
	last := len(names) - 1
	if last > 0 {
		names[last-1] += " or " + names[last]
		names = names[:last]
	}
	return strings.Join(names, ", ")
}
