// ReadGate: what is read as gRPC reads it, by recvmsg() and edges of an epoll instance.
#include "daemon/control/read_gate.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/posix.h"

namespace kvasir {
namespace {

using std::chrono::milliseconds;

constexpr size_t kAttacker = 0, kVictim = 1;

class ReadGateTest : public ::testing::Test {
 protected:
  // A connection as gRPC watches it, and its peer's end.
  struct Ends {
    UniqueFd ours, theirs;
  };

  Ends Connect(size_t caller) {
    std::array<int, 2> fds{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds.data()), 0);
    Ends ends{UniqueFd(fds[0]), UniqueFd(fds[1])};
    EXPECT_TRUE(gate_.Add(fds[0], caller).ok());
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLET;
    event.data.fd = fds[0];
    EXPECT_EQ(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fds[0], &event), 0);
    return ends;
  }

  static void Send(const Ends& ends, size_t bytes) {
    const std::string text(bytes, 'x');
    ASSERT_EQ(::send(ends.theirs.get(), text.data(), bytes, 0), static_cast<ssize_t>(bytes));
  }

  // -1: there is nothing to read.
  static ssize_t Read(const Ends& ends) {
    std::string first(3000, '\0'), second(60'000, '\0');
    std::array<iovec, 2> pieces{iovec{first.data(), first.size()},
                                iovec{second.data(), second.size()}};
    msghdr message{};
    message.msg_iov = pieces.data();
    message.msg_iovlen = pieces.size();
    const ssize_t read = ::recvmsg(ends.ours.get(), &message, 0);
    if (read < 0) {
      EXPECT_EQ(errno, EAGAIN);
    }
    return read;
  }

  // The descriptors that have an edge, until there is none for so long.
  std::vector<int> Edges(milliseconds time) {
    std::vector<int> edges;
    epoll_event event{};
    while (::epoll_wait(epoll_.get(), &event, 1, static_cast<int>(time.count())) == 1) {
      if ((event.events & EPOLLIN) != 0) edges.push_back(event.data.fd);
    }
    return edges;
  }

  // The attacker has used up what comes in in so long.
  void Spend(milliseconds time) {
    const Instant now = SystemClock().Now();
    shares_.Charge(kVictim, now, milliseconds(1));
    shares_.Charge(
        kAttacker, now,
        TimeShares::kBurst + std::chrono::duration_cast<Instant::duration>(kShare * time));
  }

  static constexpr double kShare = 0.1;
  TimeShares shares_{2, kShare};
  ReadGate gate_{shares_};
  UniqueFd epoll_{::epoll_create1(EPOLL_CLOEXEC)};
};

TEST_F(ReadGateTest, WhoIsAloneReadsAll) {
  const Ends ends = Connect(kAttacker);
  Send(ends, 50'000);
  shares_.Charge(kAttacker, SystemClock().Now(), std::chrono::seconds(10));
  EXPECT_EQ(Read(ends), 50'000);
  EXPECT_EQ(Read(ends), -1);
}

TEST_F(ReadGateTest, BesideOthersPieces) {
  const Ends ends = Connect(kAttacker);
  Send(ends, 10'000);
  shares_.Charge(kVictim, SystemClock().Now(), milliseconds(1));
  EXPECT_EQ(Read(ends), 4096);
  EXPECT_EQ(Read(ends), 4096);
  EXPECT_EQ(Read(ends), 10'000 - 2 * 4096);
}

TEST_F(ReadGateTest, WhoHasUsedUpItsShareHasNothingToReadAndThenAnEdge) {
  const Ends ends = Connect(kAttacker), victim = Connect(kVictim);
  Send(ends, 10'000);
  Send(victim, 100);
  (void)Edges(milliseconds(0));
  Spend(milliseconds(60));
  const Instant before = SystemClock().Now();
  EXPECT_EQ(Read(ends), -1);
  EXPECT_EQ(Read(victim), 100) << "it is not the victim's share";
  epoll_event event{};
  ASSERT_EQ(::epoll_wait(epoll_.get(), &event, 1, 10'000), 1);
  EXPECT_EQ(event.data.fd, ends.ours.get());
  EXPECT_NE(event.events & EPOLLIN, 0U);
  EXPECT_GE(SystemClock().Now() - before, milliseconds(20)) << "not before more has come in";
  EXPECT_EQ(Read(ends), 4096);
}

TEST_F(ReadGateTest, ConnectionsOfOneGoInTurn) {
  std::vector<Ends> all;
  for (int i = 0; i < 3; ++i) {
    all.push_back(Connect(kAttacker));
    Send(all.back(), 10'000);
  }
  (void)Edges(milliseconds(0));
  Spend(milliseconds(30));
  for (const Ends& ends : all) EXPECT_EQ(Read(ends), -1);
  for (const Ends& ends : all) EXPECT_EQ(Read(ends), -1) << "asking again changes no turn";
  std::vector<int> order;
  while (order.size() < 6) {
    epoll_event event{};
    ASSERT_EQ(::epoll_wait(epoll_.get(), &event, 1, 10'000), 1);
    order.push_back(event.data.fd);
    for (const Ends& ends : all) {
      if (ends.ours.get() != event.data.fd) continue;
      EXPECT_EQ(Read(ends), 4096);
      Spend(milliseconds(10));
      EXPECT_EQ(Read(ends), -1);
    }
  }
  for (size_t i = 0; i < order.size(); ++i) EXPECT_EQ(order[i], all[i % 3].ours.get()) << i;
}

TEST_F(ReadGateTest, ANumberThatIsUsedAgainIsNotHeldBack) {
  Ends ends = Connect(kAttacker);
  Send(ends, 10'000);
  Spend(milliseconds(200));
  EXPECT_EQ(Read(ends), -1);
  const int number = ends.ours.get();
  ends = {};
  std::array<int, 2> fds{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds.data()), 0);
  Ends other{UniqueFd(fds[0]), UniqueFd(fds[1])};
  if (other.ours.get() != number) std::swap(other.ours, other.theirs);
  ASSERT_EQ(other.ours.get(), number);
  Send(other, 10'000);
  EXPECT_EQ(Read(other), 10'000);
}

TEST_F(ReadGateTest, TheEndOfAConnectionIsSeen) {
  Ends ends = Connect(kAttacker);
  shares_.Charge(kVictim, SystemClock().Now(), milliseconds(1));
  ends.theirs.reset();
  EXPECT_EQ(Read(ends), 0);
}

TEST_F(ReadGateTest, WhatIsNoSocketIsRefused) {
  const UniqueFd file(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  EXPECT_FALSE(gate_.Add(file.get(), kAttacker).ok());
}

}  // namespace
}  // namespace kvasir
