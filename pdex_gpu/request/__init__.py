"""The request of a call: its options, and the screen opened as they say.

Options are in groups, frozen dataclasses that are checked in the subpackages that use them;
:mod:`.options` holds the groups together, :mod:`.keywords` types the keywords of public calls. May
import ``results`` and the subpackages below it. To add an option, add a field to its group and to
the typed keywords; the command line is made from the groups.
"""
