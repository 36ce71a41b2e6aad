// A warp, whose lanes stand at one instruction or, where they diverged, at several.
#pragma once

#include <vector>

#include "types.h"

namespace {

enum State { READY, AT_WARP, AT_BLOCK };

// Lanes that stand at the same instruction.
struct Group {
    i32 at;
    u32 mask;
    State state;
};

struct Warp {
    Registers registers;
    std::vector<Group> groups;
    u32 alive;
    u32 barriers;  // of all lanes that are alive, so far
    u64 issues;
    int number;

    void start() {
        groups.assign(1, {0, FULL, READY});
        alive = FULL;
        barriers = 0;
        issues = 0;
    }

    bool ready() const {
        for (const Group& group : groups)
            if (group.state == READY) return true;
        return false;
    }

    // The group furthest behind in the text, of those that can run; none: -1.
    int next() const {
        int first = -1;
        for (int g = 0; g < int(groups.size()); g++)
            if (groups[size_t(g)].state == READY &&
                (first < 0 || groups[size_t(g)].at < groups[size_t(first)].at))
                first = g;
        return first;
    }

    // Where the group that runs reaches another one: from its place on, the first of theirs.
    i32 meeting(int running) const {
        i32 found = INT32_MAX;
        for (int g = 0; g < int(groups.size()); g++) {
            const i32 at = groups[size_t(g)].at;
            if (g != running && at >= groups[size_t(running)].at && at < found) found = at;
        }
        return found;
    }

    // Makes one of groups that stand at the same instruction in the same state.
    void join() {
        for (size_t g = 0; g < groups.size(); g++)
            for (size_t h = groups.size() - 1; h > g; h--)
                if (groups[h].at == groups[g].at && groups[h].state == groups[g].state) {
                    groups[g].mask |= groups[h].mask;
                    groups.erase(groups.begin() + i64(h));
                }
    }
};

}  // namespace
