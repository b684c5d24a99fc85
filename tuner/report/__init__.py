"""`python -m tuner report`: one page about what was tuned, on what, how much faster it is and why to believe it.

`sources` finds and loads files, `measured`, `searches`, `importance` and `trust` turn them into the nouns of `nouns`;
`rooflines`, `panels` and `drawing` draw, `page` and `markdown` write. Nothing here touches a device.
"""
