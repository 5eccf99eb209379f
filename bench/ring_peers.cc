#include "bench/ring_peers.h"

#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "ring/command_caller.h"
#include "ring/commands.h"
#include "ring/doorbell.h"
#include "ring/futex.h"
#include "ring/pause.h"
#include "ring/submission_consumer.h"

#include <fmt/format.h>
#include <poll.h>
#include <sched.h>
#include <spawn.h>

extern char** environ;

namespace kvasir::bench {
namespace {

constexpr auto kForEver = std::chrono::seconds(10);  // longer is a failure
constexpr uint64_t kBootEpoch = 1;
constexpr uint32_t kSequences = 256;

shm::RingGeometry GeometryOf() {
  return shm::RingGeometryFor({}, shm::kHeaderBytes, shm::kHeaderBytes, kSequences);
}

// Not close-on-exec: the responder inherits it.
absl::StatusOr<UniqueFd> MakeMemory(const char* name, uint64_t bytes) {
  UniqueFd fd(::memfd_create(name, 0));
  if (!fd || ::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return ErrnoStatus(errno, "memfd_create");
  }
  return fd;
}

absl::Status WatchBoth(int epoll, int bell, int stop) {
  KVASIR_RETURN_IF_ERROR(ring::WatchDoorbell(epoll, bell, 0));
  epoll_event event{};
  event.events = EPOLLHUP;
  event.data.u64 = 1;
  if (::epoll_ctl(epoll, EPOLL_CTL_ADD, stop, &event) != 0) return ErrnoStatus(errno, "epoll_ctl");
  return absl::OkStatus();
}

// Sleeps until the bell rings; false: it is over.
bool SleepForBell(int epoll) {
  epoll_event event{};
  while (::epoll_wait(epoll, &event, 1, -1) < 0 && errno == EINTR) {
  }
  return event.data.u64 == 0;
}

bool IsOver(int stop) {
  pollfd entry{stop, 0, 0};
  return ::poll(&entry, 1, 0) == 1;
}

void RespondByLines(PlainWords& words, int stop) {
  uint32_t seen = 0;
  for (uint64_t looks = 1;; ++looks) {
    if (words.call.load(std::memory_order_acquire) == seen) {
      if (looks % 100'000'000 == 0 && IsOver(stop)) return;
      ring::Pause();
      continue;
    }
    ++seen;
    words.answer_data[0] = words.call_data[0] + 1;
    words.answer.store(seen, std::memory_order_release);
  }
}

void RespondByFutex(PlainWords& words, int stop) {
  for (uint32_t seen = 0;;) {
    while (words.call.load(std::memory_order_acquire) == seen) {
      words.sleeps.fetch_add(1, std::memory_order_relaxed);
      if (ring::FutexWait(words.call, seen, kForEver) == ring::FutexWaited::kTimedOut &&
          IsOver(stop)) {
        return;
      }
    }
    ++seen;
    words.answer.store(seen, std::memory_order_release);
    ring::FutexWake(words.answer);
  }
}

absl::Status RespondByEventfd(PlainWords& words, const SharedParts& parts) {
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  KVASIR_RETURN_IF_ERROR(WatchBoth(epoll.get(), parts.call_bell.get(), parts.stop.get()));
  while (SleepForBell(epoll.get())) {
    words.sleeps.fetch_add(1, std::memory_order_relaxed);
    KVASIR_RETURN_IF_ERROR(ring::RingDoorbell(parts.answer_bell.get()));
  }
  return absl::OkStatus();
}

absl::Status RespondByRing(PlainWords& words, const SharedParts& parts, bool asleep) {
  const shm::RingGeometry geometry = GeometryOf();
  KVASIR_ASSIGN_OR_RETURN(
      const MappedRegion d,
      MappedRegion::Map(parts.d, geometry.answers_off + geometry.answer_area_bytes,
                        Access::kReadWrite));
  KVASIR_ASSIGN_OR_RETURN(
      const MappedRegion e,
      MappedRegion::Map(parts.e, geometry.payloads_off + geometry.payload_area_bytes,
                        Access::kReadWrite));
  const auto memory = ring::DaemonRingMemory::Create(geometry, kBootEpoch, d.data(), e.data());
  ring::CompletionProducer completions(memory);
  ring::SubmissionConsumer submissions(memory, completions);
  std::vector<uint64_t> buffer(geometry.PayloadBytesMax() / 8);
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  KVASIR_RETURN_IF_ERROR(WatchBoth(epoll.get(), parts.call_bell.get(), parts.stop.get()));
  words.answer.store(1, std::memory_order_release);  // the ring is laid out
  for (uint64_t turns = 1;; ++turns) {
    KVASIR_RETURN_IF_ERROR(submissions.BeginTurn());
    ring::Command command;
    for (;;) {
      KVASIR_ASSIGN_OR_RETURN(
          const ring::Taken taken,
          submissions.Take(&command, std::as_writable_bytes(std::span(buffer))));
      if (taken != ring::Taken::kCommand) break;
      completions.Complete(command.ticket, {{command.entry.arg[0] + 1, 0, 0}, {}});
    }
    if (asleep) {
      if (submissions.EndTurn() == ring::TurnEnd::kMore) continue;
      words.sleeps.fetch_add(1, std::memory_order_relaxed);
      if (!SleepForBell(epoll.get())) return absl::OkStatus();
    } else {
      while (!submissions.HasNews()) {
        if (++turns % 100'000'000 == 0 && IsOver(parts.stop.get())) return absl::OkStatus();
        ring::Pause();
      }
    }
  }
}

// Looks for `spin`, then sleeps on the futex.
absl::Status AwaitAnswer(PlainWords& words, uint32_t expected, std::chrono::nanoseconds spin) {
  const Instant until = SystemClock().Now() + spin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (words.answer.load(std::memory_order_acquire) == expected) return absl::OkStatus();
      ring::Pause();
    }
  } while (SystemClock().Now() < until);
  while (words.answer.load(std::memory_order_acquire) != expected) {
    if (ring::FutexWait(words.answer, expected - 1, kForEver) == ring::FutexWaited::kTimedOut) {
      return DeadlineExceeded("the responder does not answer");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckResult(uint64_t result, uint64_t expected) {
  if (result == expected) return absl::OkStatus();
  return Internal("the responder gave a wrong answer: value={} expected={}", result, expected);
}

// An engine's end; both ways of using it.
struct EngineSide {
  EngineSide(ring::EngineRingMemory opened, int bell, std::chrono::nanoseconds spin)
      : memory(opened),
        submissions(memory, credit, bell),
        completions(memory, credit, {spin, std::chrono::milliseconds(50), [] { return false; }}) {}

  absl::Status Call() {
    KVASIR_ASSIGN_OR_RETURN(const bool submitted,
                            submissions.Submit(ring::MakeSync({1, 2}, ++calls, {})));
    if (!submitted) return Internal("no room");
    KVASIR_RETURN_IF_ERROR(completions.Wait(SystemClock().Now() + kForEver));
    ring::Completion completion;
    KVASIR_ASSIGN_OR_RETURN(const bool there, completions.Next(&completion));
    if (!there) return Internal("no completion");
    completions.Done();
    return CheckResult(completion.entry.result[0], calls + 1);
  }

  const ring::EngineRingMemory memory;
  ring::RingCredit credit;
  ring::SubmissionProducer submissions;
  ring::CompletionConsumer completions;
  uint64_t calls = 0;
};

}  // namespace

void PinTo(int cpu) {
  if (cpu < 0) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  (void)::sched_setaffinity(0, sizeof(set), &set);
}

absl::StatusOr<SharedParts> SharedParts::Make() {
  SharedParts parts;
  const shm::RingGeometry geometry = GeometryOf();
  KVASIR_ASSIGN_OR_RETURN(parts.words, MakeMemory("bench-ring-words", kPageBytes));
  KVASIR_ASSIGN_OR_RETURN(
      parts.d, MakeMemory("bench-ring-d", geometry.answers_off + geometry.answer_area_bytes));
  KVASIR_ASSIGN_OR_RETURN(
      parts.e, MakeMemory("bench-ring-e", geometry.payloads_off + geometry.payload_area_bytes));
  parts.call_bell = UniqueFd(::eventfd(0, EFD_NONBLOCK));
  parts.answer_bell = UniqueFd(::eventfd(0, EFD_NONBLOCK));
  if (!parts.call_bell || !parts.answer_bell) return ErrnoStatus(errno, "eventfd");
  return parts;
}

absl::Status Respond(const PathSetting& setting, const SharedParts& parts) {
  KVASIR_ASSIGN_OR_RETURN(const MappedRegion region,
                          MappedRegion::Map(parts.words, kPageBytes, Access::kReadWrite));
  auto& words = *reinterpret_cast<PlainWords*>(region.data());
  switch (setting.path) {
    case Path::kLines:
      RespondByLines(words, parts.stop.get());
      return absl::OkStatus();
    case Path::kFutex:
      RespondByFutex(words, parts.stop.get());
      return absl::OkStatus();
    case Path::kEventfd:
      return RespondByEventfd(words, parts);
    default:
      return RespondByRing(words, parts, setting.asleep);
  }
}

std::vector<std::string> ArgumentsOf(const PathSetting& setting, const SharedParts& parts,
                                     int cpu) {
  std::vector<std::string> arguments = {"bench_ring", "--respond"};
  for (const int value : {static_cast<int>(setting.path), setting.asleep ? 1 : 0, cpu,
                          parts.words.get(), parts.d.get(), parts.e.get(), parts.call_bell.get(),
                          parts.answer_bell.get(), parts.stop.get()}) {
    arguments.push_back(fmt::format("{}", value));
  }
  return arguments;
}

absl::Status Exchange::Prepare(const PathSetting& setting) {
  KVASIR_ASSIGN_OR_RETURN(words_, MappedRegion::Map(parts_.words, kPageBytes, Access::kReadWrite));
  auto* const words = reinterpret_cast<PlainWords*>(words_.data());
  const std::chrono::nanoseconds spin = setting.spin;
  if (setting.path == Path::kLines || setting.path == Path::kFutex) {
    const bool wakes = setting.path == Path::kFutex;
    call_ = [words, wakes, spin, calls = uint32_t{0}]() mutable -> absl::Status {
      words->call_data[0] = ++calls;
      words->call.store(calls, std::memory_order_release);
      if (wakes) {
        ring::FutexWake(words->call);
        return AwaitAnswer(*words, calls, spin);
      }
      while (words->answer.load(std::memory_order_acquire) != calls) ring::Pause();
      return CheckResult(words->answer_data[0], uint64_t{calls} + 1);
    };
    return absl::OkStatus();
  }
  if (setting.path == Path::kEventfd) {
    const auto epoll = std::make_shared<UniqueFd>(::epoll_create1(EPOLL_CLOEXEC));
    KVASIR_RETURN_IF_ERROR(ring::WatchDoorbell(epoll->get(), parts_.answer_bell.get(), 0));
    call_ = [this, epoll]() -> absl::Status {
      KVASIR_RETURN_IF_ERROR(ring::RingDoorbell(parts_.call_bell.get()));
      return SleepForBell(epoll->get()) ? absl::OkStatus() : Internal("no bell");
    };
    return absl::OkStatus();
  }
  const Instant deadline = SystemClock().Now() + kForEver;
  while (words->answer.load(std::memory_order_acquire) == 0) {  // until the ring is laid out
    if (SystemClock().Now() > deadline) return Unavailable("the responder does not start");
    ::sched_yield();
  }
  const shm::RingGeometry geometry = GeometryOf();
  const uint64_t d_bytes = geometry.answers_off + geometry.answer_area_bytes;
  const uint64_t e_bytes = geometry.payloads_off + geometry.payload_area_bytes;
  KVASIR_ASSIGN_OR_RETURN(d_, MappedRegion::Map(parts_.d, d_bytes, Access::kReadWrite));
  KVASIR_ASSIGN_OR_RETURN(e_, MappedRegion::Map(parts_.e, e_bytes, Access::kReadWrite));
  reinterpret_cast<shm::DaemonHeader*>(d_.data())->boot_epoch = kBootEpoch;
  KVASIR_ASSIGN_OR_RETURN(const ring::EngineRingMemory memory,
                          ring::EngineRingMemory::Open(d_.data(), d_bytes, e_.data(), e_bytes));
  const auto engine = std::make_shared<EngineSide>(memory, parts_.call_bell.get(), spin);
  if (setting.path == Path::kRing) {
    call_ = [engine] { return engine->Call(); };
    return absl::OkStatus();
  }
  const auto caller = std::make_shared<ring::CommandCaller>(
      engine->memory, parts_.call_bell.get(),
      ring::WaitOptions{spin, std::chrono::milliseconds(50), [] { return false; }});
  call_ = [engine, caller]() -> absl::Status {
    shm::CompletionEntry reply{};
    KVASIR_RETURN_IF_ERROR(caller->Call(ring::MakeSync({1, 2}, ++engine->calls, {}), {}, {},
                                        SystemClock().Now() + kForEver, &reply));
    return CheckResult(reply.result[0], engine->calls + 1);
  };
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Exchange>> Exchange::Start(const PathSetting& setting,
                                                          int responder_cpu) {
  std::unique_ptr<Exchange> exchange(new Exchange);
  KVASIR_ASSIGN_OR_RETURN(exchange->parts_, SharedParts::Make());
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), 0) != 0) return ErrnoStatus(errno, "pipe2");
  exchange->parts_.stop = UniqueFd(pipe[0]);
  exchange->stop_ = UniqueFd(pipe[1]);
  std::vector<std::string> arguments = ArgumentsOf(setting, exchange->parts_, responder_cpu);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addclose(&actions, pipe[1]);
  const int error =
      ::posix_spawn(&exchange->pid_, "/proc/self/exe", &actions, nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return ErrnoStatus(error, "posix_spawn");
  KVASIR_RETURN_IF_ERROR(exchange->Prepare(setting));
  return exchange;
}

Exchange::~Exchange() {
  call_ = nullptr;
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

uint64_t Exchange::Sleeps() const {
  return reinterpret_cast<const PlainWords*>(words_.data())->sleeps.load();
}

}  // namespace kvasir::bench
