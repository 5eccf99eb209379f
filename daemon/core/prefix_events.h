// PrefixEvents: what was stored in and removed from the prefix caches, for those who watch.
//
// The newest events are kept, by ascending number, as many as their bounds allow; who asks too late
// is told that some are gone. Not thread-safe. Cost: O(1) an event, beside the keys that it names.
#ifndef KVASIR_DAEMON_CORE_PREFIX_EVENTS_H_
#define KVASIR_DAEMON_CORE_PREFIX_EVENTS_H_

#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "index/chain_key.h"

namespace kvasir::core {

enum class RemovalCause {
  kNone,        // it was stored
  kEvicted,     // to make room, or by an operator
  kSuperseded,  // by a longer prefix that has it in it
  kDegraded,    // a form of it that holds less is there
};

struct PrefixChange {
  std::string tenant;
  std::string retention;
  uint64_t rows = 0;           // of the entry, after the change
  std::vector<ChainKey> keys;  // of its chunks that became or ceased to be attachable
  uint64_t entry = 0;
  std::string place;  // of the entry: "memory", a pool or a tier; its numbers are its own
  std::string condensed_from = {};  // of the entry, as in snapshot.h
};

class PrefixEvents {
 public:
  struct Event {
    uint64_t number = 0;
    RemovalCause cause = RemovalCause::kNone;
    PrefixChange change;
  };

  explicit PrefixEvents(size_t events_max) : events_max_(events_max) {}

  void Stored(PrefixChange change) { Add(RemovalCause::kNone, std::move(change)); }
  void Removed(PrefixChange change, RemovalCause cause) { Add(cause, std::move(change)); }

  const std::deque<Event>& events() const { return events_; }
  uint64_t next_number() const { return next_; }

 private:
  void Add(RemovalCause cause, PrefixChange change) {
    keys_ += change.keys.size();
    events_.push_back({next_++, cause, std::move(change)});
    while (events_.size() > events_max_ || (keys_ > kKeysMax && events_.size() > 1)) {
      keys_ -= events_.front().change.keys.size();
      events_.pop_front();
    }
  }

  static constexpr size_t kKeysMax = 1 << 20;  // 16 MiB, whatever the lengths of prompts

  const size_t events_max_;
  size_t keys_ = 0;  // of all events
  std::deque<Event> events_;
  uint64_t next_ = 1;
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_PREFIX_EVENTS_H_
