#include "tests/support/child_process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>

#include <gtest/gtest.h>

#include <spawn.h>

namespace kvasir::testing {
namespace {

std::vector<char*> Pointers(const std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (const std::string& text : texts) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

std::string SiblingProgram(const std::string& name) {
  return (std::filesystem::read_symlink("/proc/self/exe").parent_path() / name).string();
}

ChildProcess::ChildProcess(const std::vector<std::string>& argv,
                           const std::vector<std::string>& environment,
                           const std::vector<int>& inherited) {
  std::array<int, 2> output{}, errors{};
  EXPECT_EQ(::pipe2(output.data(), O_CLOEXEC), 0);
  EXPECT_EQ(::pipe2(errors.data(), O_CLOEXEC), 0);
  output_ = UniqueFd(output[0]);
  errors_ = UniqueFd(errors[0]);
  const UniqueFd output_end(output[1]), errors_end(errors[1]);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, output_end.get(), STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, errors_end.get(), STDERR_FILENO);
  for (size_t i = 0; i < inherited.size(); ++i) {
    const int place = 3 + static_cast<int>(i);
    EXPECT_GE(inherited[i], 3 + static_cast<int>(inherited.size()));
    ::posix_spawn_file_actions_adddup2(&actions, inherited[i], place);
  }
  std::vector<std::string> all = environment;
  for (char** each = environ; *each != nullptr; ++each) all.emplace_back(*each);
  const int error = ::posix_spawn(&pid_, argv[0].c_str(), &actions, nullptr, Pointers(argv).data(),
                                  Pointers(all).data());
  ::posix_spawn_file_actions_destroy(&actions);
  EXPECT_EQ(error, 0) << argv[0] << ": " << std::strerror(error);
}

ChildProcess::~ChildProcess() {
  if (pid_ <= 0 || status_) return;
  Signal(SIGKILL);
  (void)Wait();
}

std::optional<char> ChildProcess::ReadByte() {
  char byte = 0;
  ssize_t got = 0;
  do {
    got = ::read(output_.get(), &byte, 1);
  } while (got < 0 && errno == EINTR);
  return got == 1 ? std::optional<char>(byte) : std::nullopt;
}

std::optional<std::string> ChildProcess::ReadLine() {
  std::string line;
  for (;;) {
    const std::optional<char> byte = ReadByte();
    if (!byte) return line.empty() ? std::nullopt : std::optional<std::string>(line);
    if (*byte == '\n') return line;
    line += *byte;
  }
}

std::string ChildProcess::ReadErrors() {
  std::string text;
  std::array<char, 4096> buffer{};
  for (;;) {
    const ssize_t got = ::read(errors_.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return text;
    text.append(buffer.data(), static_cast<size_t>(got));
  }
}

void ChildProcess::Signal(int number) const {
  EXPECT_GT(pid_, 0);
  if (pid_ <= 0 || status_) return;
  EXPECT_EQ(::kill(pid_, number), 0);
}

int ChildProcess::Wait() {
  if (status_) return *status_;
  int raw = 0;
  while (::waitpid(pid_, &raw, 0) < 0 && errno == EINTR) {
  }
  status_ = WIFEXITED(raw) ? WEXITSTATUS(raw) : -WTERMSIG(raw);
  return *status_;
}

}  // namespace kvasir::testing
