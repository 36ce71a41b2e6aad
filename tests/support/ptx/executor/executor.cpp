// The library's doors, which ../executor.py calls.

#include "machine.h"

extern "C" {

// The number of a form, as ../decoder.py names it; -1 for one that is not known.
int ptx_form(const char* name) {
    if (forms.empty()) fill_forms();
    const auto found = form_numbers.find(name);
    return found == form_numbers.end() ? -1 : found->second;
}

// Returns whether the launch failed; its message then says how.
int ptx_launch(const Launch* launch) {
    try {
        Machine(*launch).run();
        return 0;
    } catch (const Failure&) {
        return 1;
    }
}
}
