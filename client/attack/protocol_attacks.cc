// Lies to the daemon: on the data socket, in the ring, on the desk. Each has a session of its own.
#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <utility>

#include "base/error.h"
#include "client/attack/attacks.h"
#include "client/attack/by_hand.h"
#include "proto/shm/command_ring_layout.h"
#include "ring/doorbell.h"
#include "ring/ring_memory.h"

#include <fmt/format.h>

namespace kvasir::attack {
namespace {

constexpr char kHungUp[] = "daemon: the session is ended";

void AttackHello(const Target& target, Attempts& attempts) {
  const auto attack = [&](const char* what, const std::function<void(shm::Hello&)>& spoil) {
    absl::StatusOr<DataSocket> socket = DataSocket::Connect(target.data_socket);
    if (!socket.ok()) return attempts.Add(what, Verdict::kNotTried, MessageOf(socket.status()));
    shm::Hello hello = GoodHello();
    spoil(hello);
    attempts.AddStatus(what, socket->Greet(hello),
                       {absl::StatusCode::kInvalidArgument, absl::StatusCode::kFailedPrecondition});
  };
  attack("say hello with a wrong magic", [](shm::Hello& hello) { hello.magic ^= 1; });
  attack("say hello as the daemon would",
         [](shm::Hello& hello) { hello.kind = static_cast<uint32_t>(shm::MessageKind::kWelcome); });
  attack("say hello with a version to come",
         [](shm::Hello& hello) { hello.abi_min = hello.abi_max = 9999; });
  attack("say hello with bytes that are reserved", [](shm::Hello& hello) { hello.reserved = 7; });
  {
    const char* const what = "send a huge message on the data socket";
    absl::StatusOr<DataSocket> socket = DataSocket::Connect(target.data_socket);
    const std::string huge(128 << 10, 'h');
    if (socket.ok() && socket->Send(huge.data(), huge.size()).ok()) {
      attempts.Add(what, socket->IsHungUp() ? Verdict::kRefused : Verdict::kSucceeded,
                   "daemon: the connection is closed");
    } else {
      attempts.Add(what, Verdict::kRefused, "kernel: it takes no message of this size");
    }
  }
  absl::StatusOr<Engine> engine = Engine::Start(target.control_socket, target.data_socket, 1);
  if (!engine.ok()) return;
  const std::string token = engine->data().token();
  (void)engine->data().Send(token.data(), token.size());
  attempts.Add("speak on the data socket after hello",
               engine->data().IsHungUp() ? Verdict::kRefused : Verdict::kSucceeded, kHungUp);
}

class RingAttack {
 public:
  RingAttack(const Target& target, Attempts& attempts) : target_(target), attempts_(attempts) {}

  // `spoil` writes one submission and the tail.
  void Try(const std::string& lie,
           const std::function<void(const ring::EngineRingMemory&, shm::SubmissionEntry&,
                                    uint32_t& entries)>& spoil) {
    const std::string what = kViolation + lie;
    absl::StatusOr<Engine> engine = Engine::Start(target_.control_socket, target_.data_socket, 1);
    if (!engine.ok()) {
      return attempts_.Add(what, Verdict::kNotTried, MessageOf(engine.status()));
    }
    DataSocket& data = engine->data();
    const auto memory = ring::EngineRingMemory::Open(data.d().data(), data.d().bytes(),
                                                     data.e().data(), data.e().bytes());
    if (!memory.ok()) {
      return attempts_.Add(what, Verdict::kNotTried, MessageOf(memory.status()));
    }
    shm::SubmissionEntry entry{};
    entry.op = static_cast<uint8_t>(shm::CommandOp::kSync);
    uint32_t entries = 1;
    spoil(*memory, entry, entries);
    const uint32_t tail = memory->engine_words->sq_tail.load();
    const uint32_t index = tail & (memory->geometry.submission_entries - 1);
    std::memcpy(memory->submissions + sizeof(entry) * index, &entry, sizeof(entry));
    memory->engine_words->sq_tail.store(tail + entries);
    (void)ring::RingDoorbell(data.doorbell().get());
    attempts_.Add(what, data.IsHungUp() ? Verdict::kRefused : Verdict::kSucceeded, kHungUp);
  }

 private:
  const Target& target_;
  Attempts& attempts_;
};

void AttackRing(const Target& target, Attempts& attempts) {
  RingAttack attack(target, attempts);
  using Memory = ring::EngineRingMemory;
  using Entry = shm::SubmissionEntry;
  attack.Try("a ring counter far ahead", [](const Memory& memory, Entry&, uint32_t& entries) {
    entries = memory.geometry.submission_entries + 1;
  });
  attack.Try("a command that does not exist",
             [](const Memory&, Entry& entry, uint32_t&) { entry.op = 200; });
  attack.Try("a command with reserved bits",
             [](const Memory&, Entry& entry, uint32_t&) { entry.reserved1 = 1; });
  attack.Try("an offset beyond the payload area", [](const Memory&, Entry& entry, uint32_t&) {
    entry.op = static_cast<uint8_t>(shm::CommandOp::kMatchPrefix);
    entry.payload_off = 0xFFFFFFC0;
    entry.payload_bytes = sizeof(uint64_t) * 64;
  });
  attack.Try("a length beyond the payload area", [](const Memory&, Entry& entry, uint32_t&) {
    entry.op = static_cast<uint8_t>(shm::CommandOp::kMatchPrefix);
    entry.payload_bytes = 0xFFFFFFF8;
  });
  attack.Try("a sequence beyond the last", [](const Memory&, Entry& entry, uint32_t&) {
    entry.seq = 0xFFFFFFFF;
    entry.seq_uid = 1;
  });
  attack.Try("an answer longer than its area",
             [](const Memory&, Entry& entry, uint32_t&) { entry.answer_bytes_max = 0xFFFFFFC0; });
}

void AttackDesk(const Target& target, Attempts& attempts) {
  struct Lie {
    const char* text;
    uint64_t rows, adopted;
  };
  for (const Lie& lie :
       {Lie{"rows that were never granted", 1'000'000, 1}, Lie{"rows without end", ~uint64_t{0}, 1},
        Lie{"rows taken back", 4, 1}, Lie{"a version of the table to come", 5, 2},
        Lie{"a version that is gone", 5, 0}}) {
    const std::string what = std::string(kViolation) + lie.text;
    absl::StatusOr<Engine> engine = Engine::Start(target.control_socket, target.data_socket, 1);
    if (!engine.ok()) {
      attempts.Add(what, Verdict::kNotTried, MessageOf(engine.status()));
      continue;
    }
    const absl::StatusOr<v1::OpenSequenceResponse> sequence = engine->Open("full");
    absl::Status ready = sequence.status();
    if (ready.ok()) {
      engine->SetDesk(*sequence, 5, 1);
      ready = engine->Sync(*sequence, 0);
    }
    if (!ready.ok()) {
      attempts.Add(what, Verdict::kNotTried, MessageOf(ready));
      continue;
    }
    engine->SetDesk(*sequence, lie.rows, lie.adopted);
    attempts.AddStatus(what, engine->Sync(*sequence, 0), {absl::StatusCode::kPermissionDenied});
    if (!engine->data().IsHungUp()) {
      attempts.Add(what, Verdict::kSucceeded, "the session lives on");
    }
  }
  const std::string what = std::string(kViolation) + "a token beyond the vocabulary";
  absl::StatusOr<Engine> engine = Engine::Start(target.control_socket, target.data_socket, 1);
  if (!engine.ok()) return attempts.Add(what, Verdict::kNotTried, MessageOf(engine.status()));
  const absl::StatusOr<v1::OpenSequenceResponse> sequence = engine->Open("full");
  if (!sequence.ok() || !engine->WriteToken(*sequence, 0, 1000)) {
    return attempts.Add(what, Verdict::kNotTried, "no sequence with rows in the first extent");
  }
  engine->SetDesk(*sequence, 1, 1);
  attempts.AddStatus(what, engine->Sync(*sequence, 0), {absl::StatusCode::kPermissionDenied});
}

}  // namespace

void AttackProtocol(const Target& target, Attempts& attempts) {
  AttackHello(target, attempts);
  AttackRing(target, attempts);
  AttackDesk(target, attempts);
}

}  // namespace kvasir::attack
