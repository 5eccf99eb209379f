#include "bench/peer_driver.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <thread>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "bench/kernel_data.h"
#include "bench/statistics.h"

#include <fmt/format.h>
#include <spawn.h>

extern char** environ;

namespace kvasir::bench {
namespace {

constexpr auto kEndsWithin = std::chrono::seconds(10);

volatile sig_atomic_t interrupted = 0;

absl::Status CheckSum(const std::string& row, uint64_t sum, uint64_t expected) {
  if (sum == expected) return absl::OkStatus();
  return DataLoss("other bytes came back: row={} sum={:x} expected={:x}", row, sum, expected);
}

struct Pipe {
  UniqueFd read, write;
};

absl::StatusOr<Pipe> MakePipe() {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe2");
  return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

}  // namespace

void NoticeInterrupts() {
  struct sigaction action = {};
  action.sa_handler = [](int) { interrupted = 1; };  // without SA_RESTART: a read comes back
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  ::signal(SIGPIPE, SIG_IGN);  // a driver that has ended is an error of the next line
}

bool Interrupted() { return interrupted != 0; }

absl::StatusOr<std::unique_ptr<DriverPeer>> DriverPeer::Start(const std::string& command,
                                                              const PeerData& data) {
  std::unique_ptr<DriverPeer> peer(new DriverPeer(data));
  KVASIR_ASSIGN_OR_RETURN(Pipe in, MakePipe());
  KVASIR_ASSIGN_OR_RETURN(Pipe out, MakePipe());
  std::string shell = "/bin/sh", option = "-c", line = "exec " + command;
  char* const arguments[] = {shell.data(), option.data(), line.data(), nullptr};
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, in.read.get(), STDIN_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, out.write.get(), STDOUT_FILENO);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  // Of a group of its own: an interrupt at the keyboard is ours alone, and all of it can be ended.
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  const int error =
      ::posix_spawn(&peer->pid_, shell.c_str(), &actions, &attributes, arguments, environ);
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return ErrnoStatus(error, "posix_spawn of a driver");
  peer->to_ = std::move(in.write);
  peer->from_ = std::move(out.read);
  out.write.reset();
  KVASIR_ASSIGN_OR_RETURN(const std::string ready, peer->ReadLine());
  if (ready.rfind("ready ", 0) != 0) return Unavailable("it does not start: {}", ready);
  peer->about_ = ready.substr(6);
  return peer;
}

DriverPeer::~DriverPeer() {
  if (pid_ <= 0) return;
  to_.reset();  // the end of its input is the end of it
  const auto deadline = std::chrono::steady_clock::now() + kEndsWithin;
  siginfo_t ended = {};
  while (std::chrono::steady_clock::now() < deadline) {
    ended.si_pid = 0;
    const int rc = ::waitid(P_PID, static_cast<id_t>(pid_), &ended, WEXITED | WNOHANG | WNOWAIT);
    if ((rc == 0 && ended.si_pid == pid_) || (rc != 0 && errno != EINTR)) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  // Before it is waited for: until then its number is nobody else's.
  (void)::kill(-pid_, SIGKILL);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

absl::StatusOr<std::string> DriverPeer::ReadLine() {
  while (true) {
    if (Interrupted()) return MakeError(absl::StatusCode::kCancelled, "interrupted");
    if (const size_t end = read_.find('\n'); end != std::string::npos) {
      std::string line = read_.substr(0, end);
      read_.erase(0, end + 1);
      return line;
    }
    char buffer[4096];
    const ssize_t bytes = ::read(from_.get(), buffer, sizeof(buffer));
    if (bytes == 0) return Unavailable("it has ended");
    if (bytes < 0 && errno != EINTR) return ErrnoStatus(errno, "read from a driver");
    if (bytes > 0) read_.append(buffer, static_cast<size_t>(bytes));
  }
}

absl::StatusOr<std::vector<DriverPeer::Answer>> DriverPeer::Ask(
    const std::string& verb, const std::vector<uint64_t>& numbers) {
  const std::string said =
      numbers.empty() ? verb + "\n" : fmt::format("{} {}\n", verb, fmt::join(numbers, " "));
  if (::write(to_.get(), said.data(), said.size()) != static_cast<ssize_t>(said.size())) {
    return Unavailable("it takes no line: verb={}", verb);
  }
  const absl::StatusOr<std::string> line = ReadLine();
  KVASIR_RETURN_IF_ERROR(line.status());
  if (line->rfind("no", 0) == 0) return MakeError(absl::StatusCode::kUnimplemented, verb);
  std::vector<Answer> answers;
  const char* at = line->c_str() + 2;
  for (int used = 0; line->rfind("ok", 0) == 0; at += used) {
    Answer answer;
    if (std::sscanf(at, " %lf:%lu%n", &answer.ms, &answer.sum, &used) != 2) break;
    answers.push_back(answer);
  }
  if (answers.size() == std::max<size_t>(numbers.size(), 1)) return answers;
  return Unavailable("{}: {}", verb, *line);
}

absl::StatusOr<double> DriverPeer::Median(const std::string& verb,
                                          const std::vector<uint64_t>& blocks, bool sums) {
  KVASIR_ASSIGN_OR_RETURN(const std::vector<Answer> answers, Ask(verb, blocks));
  std::vector<double> samples;
  for (size_t i = 0; i < blocks.size(); ++i) {
    const std::byte* const small = data_.small + blocks[i] * kSmallBytes;
    if (sums) KVASIR_RETURN_IF_ERROR(CheckSum(verb, answers[i].sum, ReadOnce(small, kSmallBytes)));
    samples.push_back(answers[i].ms);
  }
  return MedianOf(samples).median;
}

absl::StatusOr<double> DriverPeer::Measure(const std::string& row, uint32_t round) {
  if (row == "block fetch" || row == "block lookup") {
    std::vector<uint64_t> blocks;
    for (uint32_t call = 0; call < kSmallCalls; ++call) blocks.push_back(SmallOf(round, call));
    const bool fetch = row == "block fetch";
    return Median(fetch ? "small" : "look", blocks, fetch);
  }
  std::vector<uint64_t> numbers;
  uint64_t expected = 0;
  std::string verb;
  if (row == "layer fetch") {
    verb = "layer";
    numbers = {LayerOf(round)};
    for (uint64_t block = 0; block < kBlocks; ++block) {
      const std::byte* const of_block = data_.prefix + block * kBlockBytes;
      expected += ReadOnce(of_block + numbers[0] * kSliceBytes, kSliceBytes);
    }
  } else if (row == "prefix fetch" || row == "store") {
    verb = row == "store" ? "store" : "prefix";
    expected = ReadOnce(data_.prefix, kPrefixBytes);
  } else {
    return MakeError(absl::StatusCode::kUnimplemented, row);
  }
  KVASIR_ASSIGN_OR_RETURN(const std::vector<Answer> answers, Ask(verb, numbers));
  KVASIR_RETURN_IF_ERROR(CheckSum(row, answers[0].sum, expected));
  return answers[0].ms;
}

}  // namespace kvasir::bench
