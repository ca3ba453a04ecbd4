"""Modules of the standard library, on sockets of the daemon.

load returns another copy of a module, in which `import socket` and the like
give those of sockmgr. The copy that others use stays as it is.
"""

import builtins
import importlib
import importlib.util
import sys

# What is swapped: module X is sockmgr.X.
SWAPPED = ("socket", "select", "selectors", "socketserver", "http.client", "http.server")


def load(name, own_name=None):
    """A copy of a module, wsgiref.simple_server for example."""
    spec = importlib.util.find_spec(name)
    module = importlib.util.module_from_spec(spec)
    module.__name__ = own_name or name
    module.__builtins__ = dict(vars(builtins), __import__=_import)  # what `import` calls
    exec(spec.loader.get_code(name), vars(module))  # exec_module insists on the name
    return module


def replace(own_name):
    """Makes sockmgr.X the copy of X; it is for the module of that name."""
    sys.modules[own_name] = load(own_name.partition(".")[2], own_name)


def _import(name, globals=None, locals=None, fromlist=(), level=0):
    if level or name not in SWAPPED:
        return __import__(name, globals, locals, fromlist, level)
    module = importlib.import_module("sockmgr." + name)
    return module if fromlist else importlib.import_module("sockmgr." + name.partition(".")[0])
