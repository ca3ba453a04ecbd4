// Command webserver answers on a listener of the daemon, whose name it is given.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/sockmgr/sockmgr/client"
)

func main() {
	log.SetFlags(0)
	c, err := client.Dial("")
	if err != nil {
		log.Fatal(err)
	}
	l, err := c.Listen(context.Background(), os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s is served elsewhere\n", r.URL.Path)
	})))
}
