package listeners_test

import (
	"bufio"
	"context"
	"fmt"
	"net"

	"github.com/hashicorp/go-hclog"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/mux"
)

// A handler that blocks: it greets whoever tells a name.
func ExampleHandleFunc() {
	listeners.HandleFunc("greet", func(c net.Conn) {
		name, err := bufio.NewReader(c).ReadString('\n')
		if err != nil {
			return
		}
		fmt.Fprintf(c, "Hello, %s", name)
	})

	spec, err := listeners.ParseSpec([]string{"tcp://127.0.0.1:0"}, &listeners.Func{Name: "greet"}, nil)
	if err != nil {
		panic(err)
	}
	l, err := listeners.Open("greeter", spec)
	if err != nil {
		panic(err)
	}
	poller, err := mux.NewPoller("epoll")
	if err != nil {
		panic(err)
	}
	loop, err := mux.NewLoop(poller)
	if err != nil {
		panic(err)
	}
	set := listeners.NewSet(listeners.SetConfig{Loop: loop, Log: hclog.NewNullLogger(), Changed: func(l *listeners.Listener) {
		if l.State() == listeners.Closed {
			loop.Stop()
		}
	}})
	ended := make(chan error)
	go func() { ended <- loop.Run() }()

	var at net.Addr
	err = loop.Do(context.Background(), func() error { // what is on the loop is asked there
		err := l.Attach(set, &listeners.Counters{})
		at = net.TCPAddrFromAddrPort(l.Status(false).Bound[0].IP)
		return err
	})
	if err != nil {
		panic(err)
	}
	client, err := net.Dial("tcp", at.String())
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(client, "World")
	answer, err := bufio.NewReader(client).ReadString('\n')
	if err != nil {
		panic(err)
	}
	fmt.Print(answer)
	client.Close()

	_ = loop.Post(func() { l.Stop(0) })
	if err := <-ended; err != nil {
		panic(err)
	}
	set.Close()
	if err := loop.Close(); err != nil {
		panic(err)
	}
	// Output: Hello, World
}
