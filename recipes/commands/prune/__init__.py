"""`nas prune`: a given network, made sparse or smaller, trained again, written and measured."""
