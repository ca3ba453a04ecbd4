package listeners

// Nearest returns the one of names that was probably meant by a name with a slip
// in it, or nothing.
func Nearest(name string, names []string) string {
	best, least := "", 1+len(name)/3
	for _, n := range names {
		if d := distance(name, n); d <= least {
			best, least = n, d-1
		}
	}
	return best
}
