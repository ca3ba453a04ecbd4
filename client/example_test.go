package client_test

import (
	"context"
	"log"
	"net/http"

	"github.com/sockmgr/sockmgr/client"
)

// A web server on a listener of the daemon. It may end and come again: who
// connects meanwhile waits.
func ExampleClient_Listen() {
	c, err := client.Dial("")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	l, err := c.Listen(context.Background(), "web") // made with: sockctl start web --listen tcp://:80 --handler remote
	if err != nil {
		log.Print(err)
		return
	}
	log.Print(http.Serve(l, http.FileServer(http.Dir("/srv/www"))))
}

// A web client that speaks from the daemon's host.
func ExampleClient_DialContext() {
	c, err := client.Dial("unix:///run/sockmgr/control.sock")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	web := http.Client{Transport: &http.Transport{DialContext: c.DialContext}}
	resp, err := web.Get("http://intranet.example/")
	if err != nil {
		log.Print(err)
		return
	}
	defer resp.Body.Close()
}
